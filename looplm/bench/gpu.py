"""What only a machine with a CUDA GPU can show, the most valuable first, within eight minutes: `make gpu`.

    PYTHONPATH=.:kernels python -m looplm.bench.gpu [--dry-run]

Nothing comes from a network: missing packages are named, and taken from wheels in the folder `wheels`. Each step is a process
of its own, so that one that fails or runs out of time loses no other, and no compiler's cache reaches the next; what it
found is written as soon as it ends. A dry run goes through the same steps on a CPU, with the smallest sizes.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looplm.errors import InputError
from looplm.files import to_json, write_file
from looplm.resources import resource

SCHEMA = 1
MINUTES = 7.5
"""Of the eight, the rest is for the start and the end."""
WHEELS, UNPACKED = Path("wheels"), Path("build/wheels")
NEEDED = {
    "torch": "torch",
    "triton": "triton",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
    "typing_extensions": "typing-extensions",
    "tomli_w": "tomli-w",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
    "typeguard": "typeguard",
    "rich": "rich",
}
"""What the steps import, and the distribution that has it; nothing of the command line or of the site."""


@dataclass(frozen=True)
class Step:
    """Something to be shown: it is not begun with less than `least` seconds left, and stopped after `most`."""

    name: str
    least: float
    most: float


STEPS = (
    Step("tests", 60, 150),
    Step("decode 1", 20, 110),
    Step("decode 16", 20, 90),
    Step("adder", 15, 60),
    Step("decode 128", 20, 90),
    Step("training", 20, 60),
)
OUTCOME, TEST = re.compile(r"\b(PASSED|FAILED|SKIPPED|ERROR)\b"), re.compile(r"\.py::(\S+)")
Found = tuple[list[dict[str, Any]], str]
"""Rows, and what went wrong, if anything did."""


def missing() -> list[str]:
    """Distributions that the steps need and this Python does not have."""
    return [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]


def provide() -> None:
    """Unpack the wheels that lie in `wheels`, if anything is missing.

    Raises:
        InputError: if something is missing still.
    """
    wheels = sorted(map(str, WHEELS.glob("*.whl")))
    if missing() and wheels:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
        subprocess.run([*pip, "--find-links", str(WHEELS), "--target", str(UNPACKED), *wheels], check=True)
        sys.path.insert(0, str(UNPACKED.resolve()))
        importlib.invalidate_caches()
    if absent := missing():
        raise InputError(
            f"{sys.executable} lacks {', '.join(absent)}: put a wheel of each into `{WHEELS}/`, whence it is taken without a "
            "network, or name a Python that has them: make gpu PYTHON=..."
        )


def execute(
    out: Path,
    machine: dict[str, Any],
    run: Callable[[Step, float], Found],
    minutes: float = MINUTES,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Each step in turn while there is time; the file holds at any moment what has been found until then."""
    began = now()
    written: dict[str, Any] = {"machine": machine | {"schema": SCHEMA}, "steps": [], "rows": []}
    for step in STEPS:
        start = now()
        left = began + 60 * minutes - start
        if left < step.least:
            (rows, wrong), outcome = _skipped(left), "skipped"
        else:
            rows, wrong = run(step, min(left, step.most))
            outcome = "failed" if wrong else "done"
        seconds = round(now() - start, 1)
        written["steps"].append({"step": step.name, "outcome": outcome, "why": wrong, "seconds": seconds})
        written["rows"] += [{"step": step.name} | row for row in rows]
        write_file(out, to_json(written))
        print(f"{step.name}: {outcome}, {len(rows)} rows, {seconds:.0f} s {wrong}".strip(), flush=True)
    return written


def _skipped(left: float) -> Found:
    return [], f"{max(left, 0):.0f} s were left"


def in_child(step: Step, seconds: float, dry: bool) -> Found:
    """What a process of its own prints, a row a line, also if it is stopped."""
    command = [sys.executable, "-m", "looplm.bench.gpu", "--step", step.name, *["--dry-run"] * dry]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as child:
        try:
            out, errors = child.communicate(timeout=seconds)
            wrong = "" if child.returncode == 0 else f"exit {child.returncode}: {errors[-2000:]}"
        except BaseException as stopped:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with its own children: compilers and pytest
            if not isinstance(stopped, subprocess.TimeoutExpired):
                raise
            out, _ = child.communicate()
            wrong = f"stopped after {seconds:.0f} s"
    return [json.loads(line) for line in out.splitlines(True) if line.startswith("{") and line.endswith("}\n")], wrong


def rows_of(name: str, dry: bool) -> Iterator[dict[str, Any]]:
    """The rows of one step.

    Raises:
        InputError: if a test failed.
    """
    if name == "tests":
        yield from _tests(dry)
        return
    import torch

    from looplm.bench import kernels, training
    from looplm.bench.timing import cpu_clock, cuda_clock

    device, clock = ("cpu", cpu_clock) if dry else ("cuda", cuda_clock)
    count, calls = (1, 1) if dry else (15, 20)
    what, _, batch = name.partition(" ")
    if what == "decode":
        width, dtype = (32, torch.float32) if dry else (256, torch.bfloat16)
        for halting in (False, True):
            yield kernels.measure(kernels.Setting(width, int(batch), halting), device, dtype, clock, count, calls)
    elif what == "training":
        for compiled in (False,) if dry else (False, True):
            yield training.equal_work(count, clock, compiled, 16 if dry else 256, torch.device(device))
    else:
        for sums in (2,) if dry else (1, 16, 512):
            yield kernels.measure_adder(device, ("torch", "reference" if dry else "triton"), clock, 1 if dry else 5, 1, sums)


def _tests(dry: bool) -> Iterator[dict[str, Any]]:
    """A row for each test of the kernels on a GPU, as it ends; in a dry run they are skipped, each of them.

    Most of a test's time goes into compiling for one core: several are run at once where pytest can do that.
    """
    command = [sys.executable, "-m", "pytest", "tests/kernels/test_gpu.py", "-v", "-m", "gpu and not slow"]
    command += ["-p", "no:cacheprovider", "-W", "default", "--color=no"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(min(8, os.cpu_count() or 1))]
    root, tail = resource("spec").parent, ""
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if dry else {})
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root, env=environment
    ) as tests:
        assert tests.stdout is not None
        for line in tests.stdout:
            tail = (tail + line)[-2000:]
            outcome, test = OUTCOME.search(line), TEST.search(line)
            if outcome and test and not line.startswith(outcome[0]):  # such lines are the summary
                yield {"test": test[1], "outcome": outcome[0].lower()}
    if tests.returncode:
        raise InputError(f"tests failed:\n{tail}")


def _machine(dry: bool) -> dict[str, Any]:
    import torch
    import triton

    from looplm.runs.provenance import circumstances

    if not dry and not torch.cuda.is_available():
        raise InputError("`make gpu` needs a CUDA GPU, and there is none here; `make gpu DRY=1` goes through it on a CPU.")
    device = torch.device("cpu" if dry else "cuda")
    return circumstances(device, "float32" if dry else "bfloat16") | {"triton": triton.__version__, "dry": dry}


def main(arguments: list[str] | None = None) -> int:
    """All steps, or with `--step` the rows of one: 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m looplm.bench.gpu", description="What only a GPU can show.")
    parser.add_argument("--dry-run", action="store_true", help="the same steps on a CPU, with the smallest sizes")
    parser.add_argument("--out", type=Path, help="where results go: docs/data/bench-gpu.json, in a dry run build/")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.step:
            for row in rows_of(chosen.step, chosen.dry_run):
                print(json.dumps(row), flush=True)
            return 0
        provide()
        out = chosen.out or Path("build" if chosen.dry_run else "docs/data") / "bench-gpu.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        written = execute(out, _machine(chosen.dry_run), lambda step, left: in_child(step, left, chosen.dry_run))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {out}")
    return int(any(step["outcome"] != "done" for step in written["steps"]))


if __name__ == "__main__":
    sys.exit(main())
