"""What device is this? Measured where it is not known."""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from looplm.hardware.profile import Profile, load_profile, profile_names
from looplm.settings import as_table, parse

_SECONDS = 0.4
_FEWEST = 3
"""Each measurement repeats for at least this long and this often, and takes its best."""


def find_profile(name: str) -> Profile:
    """A profile by its name or file; `auto` is the shipped one that knows this device, else a measured one.

    A CPU gets the shipped `cpu` profile with its own memory and cores.

    Spec: [hardware.detect][].
    """
    if name != "auto":
        return load_profile(name)
    known = sheet(device_kind())
    if known is None:
        return detect(threads=1)
    if known.kind == "cpu":
        return replace(known, name="auto", memory_gib=memory_bytes("cpu") / 2**30, processors=os.cpu_count())
    return known


def sheet(kind: str) -> Profile | None:
    """The shipped profile that knows this machine's device of this kind."""
    if kind == "cpu":
        return load_profile("cpu")
    own = device_title(kind)
    return next((p for p in map(load_profile, profile_names()) if p.names and own.endswith(p.names)), None)


def detect(threads: int) -> Profile:
    """A profile of this machine, its bandwidths and rates measured.

    Spec: [hardware.detect][].
    """
    kind, known = device_kind(), sheet(device_kind())
    device = torch.device("cuda" if kind == "rocm" else kind)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        table: dict[str, Any] = {
            "name": "detected",
            "title": device_title(kind),
            "kind": kind,
            "source": f"measured by `looplm profile detect`, torch {torch.__version__}, {threads} CPU threads",
            "memory_gib": round(memory_bytes(kind) / 2**30, 2),
            "memory_gb_per_s": round(copy_rate(device, 2**28) / 1e9, 2),
            "float32_tflop_per_s": round(product_rate(device, torch.float32) / 1e12, 5),
            "bfloat16_tflop_per_s": round(product_rate(device, torch.bfloat16) / 1e12, 5),
        }
        if cache := _cache_bytes(kind):
            table |= {"cache_mib": round(cache / 2**20, 2), "cache_gb_per_s": round(copy_rate(device, 2**18) / 1e9, 2)}
    finally:
        torch.set_num_threads(before)
    if processors := _processors(kind):
        table["processors"] = processors
    if known:
        table["use"] = as_table(known.use)
        table |= {"power_w": known.power_w} if known.power_w else {}
    if kind == "cpu":
        faster = table["bfloat16_tflop_per_s"] > table["float32_tflop_per_s"]
        table["use"] = {**table.get("use", {}), "threads": threads}
        if not faster:
            del table["bfloat16_tflop_per_s"]
    return parse(Profile, table, where="the detected profile")


def device_kind() -> str:
    """The kind of the best device that PyTorch can use here."""
    if torch.cuda.is_available():
        return "rocm" if torch.version.hip else "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_title(kind: str) -> str:
    """What the device calls itself."""
    if kind in ("cuda", "rocm"):
        return torch.cuda.get_device_name()
    if platform.system() == "Darwin":
        try:
            words = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def memory_bytes(kind: str) -> int:
    """All memory of the device; a CPU's, and an Apple GPU's, is the computer's."""
    if kind in ("cuda", "rocm"):
        return torch.cuda.get_device_properties(0).total_memory
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 * 2**30  # Windows has no sysconf; PyTorch needs about this much


def copy_rate(device: torch.device, size: int) -> float:
    """Bytes read and written a second, copying `size` bytes."""
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / best_time(lambda: target.copy_(source), device)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest product of square matrices tried."""
    widths = (256, 512, 1024) if device.type == "cpu" else (1024, 4096, 8192)
    rates = []
    for width in widths:
        a = torch.randn(width, width, device=device).to(dtype)
        b = torch.randn(width, width, device=device).to(dtype)
        out = torch.empty_like(a)
        rates.append(2 * width**3 / best_time(partial(torch.mm, a, b, out=out), device))
    return max(rates)


def best_time(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of many runs; on one CPU thread those of the CPU, so that a busy machine does not count."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    waits: dict[str, Callable[[], object]] = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    wait = waits.get(device.type, bool)  # a CPU's work is done when the call returns
    run()
    best, runs, end = float("inf"), 0, time.perf_counter() + _SECONDS
    while runs < _FEWEST or time.perf_counter() < end:
        runs += 1
        wait()
        start = clock()
        run()
        wait()
        best = min(best, clock() - start)
    return best


def _cache_bytes(kind: str) -> int:
    """Of the last cache before the memory; 0 where the system does not say."""
    if kind in ("cuda", "rocm"):
        return int(getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0))
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        for text in _lines(path):
            sizes.append(int(text.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1], 1))
    return max(sizes) if kind == "cpu" else 0


def _processors(kind: str) -> int | None:
    if kind in ("cuda", "rocm"):
        return torch.cuda.get_device_properties(0).multi_processor_count
    return os.cpu_count() if kind == "cpu" else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
