"""`looplm doctor`: what a report of a fault should say of the machine."""

import json
import os
import platform
import sys
from dataclasses import dataclass

from looplm.cli.console import FAILED


@dataclass(frozen=True)
class Doctor:
    """Say what LoopLM runs on, and whether the shipped models are whole: for a report of a fault."""

    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        """One line for each thing; fails if a shipped model is damaged."""
        found, whole = _examine()
        if self.json:
            print(json.dumps(found))
        else:
            widest = max(map(len, found))
            for name, value in found.items():
                print(f"{name.ljust(widest)}  {value}")
        return 0 if whole else FAILED


def _examine() -> tuple[dict[str, str], bool]:
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    import torch

    import looplm
    from looplm.errors import InputError
    from looplm.hardware.detect import device_kind, device_title, memory_bytes
    from looplm.runs.checkpoint import load, shipped_names
    from looplm.runs.provenance import commit

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    def state(name: str) -> str:
        try:
            load(name)
        except InputError as error:
            return str(error)
        return "whole"

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = device_kind()
    models = {f"model {name}": state(name) for name in shipped_names()}
    found = {
        "looplm": f"{looplm.__version__}, commit {commit()}",
        "lies in": str(Path(looplm.__file__).parent),
        "Python": f"{platform.python_version()}, {sys.executable}",
        "system": platform.platform(),
        "torch": torch.__version__,
        "triton": installed("triton"),
        "device": f"{kind}, {device_title(kind)}, {memory_bytes(kind) / 2**30:.1f} GiB",
        "cores": f"{usable} of {os.cpu_count()} usable, torch uses {torch.get_num_threads()} threads unless told otherwise",
        "encodings": f"output {sys.stdout.encoding}, errors {sys.stderr.encoding}, files {sys.getfilesystemencoding()}",
        "terminal": f"{'yes' if sys.stdout.isatty() else 'no'}, TERM={os.environ.get('TERM', '')}",
    }
    return found | models, set(models.values()) == {"whole"}
