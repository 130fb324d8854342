"""What the command line prints, and where: results to standard output, everything else to standard error."""

import os
import shlex
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from looplm.errors import InputError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

FAILED = 1
"""Exit code: the work was done, and part of it failed."""
REFUSED = 2
"""Exit code: the input was refused; nothing was done."""

_MOST_THREADS = 256
"""More than this, PyTorch's pool of threads may fail to start."""

_arguments: list[str] = []


def remember(arguments: list[str]) -> None:
    """Keep what the command line was told, for commands that name themselves."""
    _arguments[:] = arguments


def command(*added: str, without: str = "") -> str:
    """The command that runs now, to be pasted into a shell: without one word, and with others added."""
    program = ["looplm"] if Path(sys.argv[0]).stem == "looplm" else [sys.executable, "-m", "looplm"]
    return shlex.join([*program, *(word for word in _arguments if word != without), *added])


def forgive_encodings() -> None:
    """Standard output and error write `?` for a sign that their encoding lacks, in place of failing after all the work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def output() -> "Console":
    """For results. Colours only on a terminal, and none where NO_COLOR is set."""
    return _console(sys.stdout)


def notes() -> "Console":
    """For progress and remarks."""
    return _console(sys.stderr)


def _console(file: TextIO) -> "Console":
    from rich.console import Console

    class Piped(Console):
        """Says that a pipe was closed, where rich would leave Python as if the work had failed."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Piped(file=file, highlight=False, soft_wrap=not file.isatty())


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

    most = max(_MOST_THREADS, os.cpu_count() or 1)
    if not 1 <= threads <= most:
        raise InputError(f"`--threads` must be from 1 to {most}: got {threads}.")
    torch.set_num_threads(threads)

    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    names = [kind for kind, count in counts.items() if count]
    names += [f"{kind}:{number}" for kind, count in counts.items() for number in range(count)]
    if name not in names:
        raise InputError(f"the device {name!r} is not available here; there is: {', '.join(n for n in names if ':' not in n)}.")
    return torch.device(name)
