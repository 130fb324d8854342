"""Where a result comes from."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import looplm
from looplm.config import Preset
from looplm.spec import citation


def provenance(preset: Preset, seed: int, device: torch.device) -> dict[str, Any]:
    """What is needed to judge a number, and to get it again."""
    return {"preset": preset.name, "seed": seed, **circumstances(device), "clauses": [citation(id) for id in preset.clauses()]}


def circumstances(device: torch.device) -> dict[str, Any]:
    """The code and the machine."""
    return {
        "looplm": looplm.__version__,
        "commit": commit(),
        "device": device_name(device),
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def commit() -> str:
    """The checkout's commit, with `+changes` if files differ from it; `unknown` outside a checkout."""
    here = Path(looplm.__file__).resolve().parent.parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not (here / ".git").exists():
            return "unknown"
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(device: torch.device) -> str:
    """What a reader needs to know of the device: its name for a GPU, its kind and cores for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"mps ({platform.processor() or platform.machine()})"
    return f"cpu ({platform.machine()}, {os.cpu_count()} cores)"
