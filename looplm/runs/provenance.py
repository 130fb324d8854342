"""Where a result comes from."""

import hashlib
import os
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import looplm
from looplm.runs.checkpoint import read_carried
from looplm.spec import citation
from looplm.task import carried_files
from looplm.train.execution import Execution
from looplm.train.recipe import Recipe


def provenance(recipe: Recipe, seed: int, device: torch.device, execution: Execution) -> dict[str, Any]:
    """What is needed to judge a number, and to get it again."""
    clauses = dict.fromkeys((*recipe.clauses(), *execution.clauses()))
    carried = {
        setting: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for setting, path in carried_files(recipe.task).items()
        for content in (read_carried(setting, path),)
    }
    return {
        "preset": recipe.name,
        "seed": seed,
        **circumstances(device, execution.dtype),
        "execution": asdict(execution),
        **({"carried": carried} if carried else {}),
        "clauses": [citation(id) for id in clauses],
    }


def circumstances(device: torch.device, dtype: str = "float32") -> dict[str, Any]:
    """The code and the machine, and the number format of the products of matrices."""
    return {
        "looplm": looplm.__version__,
        "commit": commit(),
        "device": device_name(device),
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def commit() -> str:
    """The checkout's commit, with `+changes` if files differ from it; `unknown` outside a checkout.

    A copy of a checkout is told which it is by LOOPLM_COMMIT in the environment.
    """
    if told := os.environ.get("LOOPLM_COMMIT"):
        return told
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
