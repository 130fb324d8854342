"""What the command line prints, and where: results to standard output, everything else to standard error."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from looplm.errors import InputError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

FAILED = 1
"""Exit code: the work was done, and part of it failed."""
REFUSED = 2
"""Exit code: the input was refused; nothing was done."""

_arguments: list[str] = []


def remember(arguments: list[str]) -> None:
    """Keep what the command line was told, for commands that name themselves."""
    _arguments[:] = arguments


def command(*added: str, without: str = "") -> str:
    """The command that runs now, to be pasted into a shell: without one word, and with others added."""
    program = ["looplm"] if Path(sys.argv[0]).stem == "looplm" else [sys.executable, "-m", "looplm"]
    return shlex.join([*program, *(word for word in _arguments if word != without), *added])


def output() -> "Console":
    """For results. Colours only on a terminal, and none where NO_COLOR is set."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def notes() -> "Console":
    """For progress and remarks."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, soft_wrap=not sys.stderr.isatty())


def fail(message: str) -> None:
    """One line on standard error; spaces stay as they are, so that a command in it can be pasted."""
    print(f"looplm: {' '.join(line.strip() for line in message.splitlines())}", file=sys.stderr)


def find_device(name: str, threads: int = 1) -> "torch.device":
    """The device of this name; PyTorch uses `threads` CPU threads from now on.

    One thread is the default: models this small gain little from a second one, and on a busy machine threads that wait
    for each other are many times slower.

    Raises:
        InputError: if it is unknown, or this machine has none.
    """
    import torch

    if threads < 1:
        raise InputError(f"`--threads` must be at least 1: got {threads}.")
    torch.set_num_threads(threads)

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name.split(":")[0], False):
        there = ", ".join(kind for kind, present in available.items() if present)
        raise InputError(f"the device {name!r} is not available here; there is: {there}.")
    return torch.device(name)
