"""Runs that strike themselves at a moment: a process of its own that test_chaos.py tells what to do, line by line.

Each run is a forked child, so that what is slow to import is imported once; the parent never computes a gradient, since
PyTorch cannot be forked after one. A moment is the end of a step, or a change of a file below the run's folder, just
before it happens or with half of it written. The moments of a run have numbers, from 1.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from looplm.cli import main
from looplm.evaluate import figures
from looplm.runs.folder import RunFolder
from looplm.runs.run import Keeping, run_recipe
from looplm.train.recipe import load_recipe

EVERY, SEED = 3, 3
"""Steps between two checkpoints; the seed of all runs."""
_CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
_SECONDS = 100
"""After which a child that hangs is ended."""


@dataclass
class Moments:
    """Counts the moments of a run, and strikes at some."""

    folder: Path
    numbers: Sequence[int] = ()
    text: str | None = None
    """Strike also at the first moment that is described with this text."""
    signals: Sequence[int] = (signal.SIGKILL,)
    note: Path | None = None
    """Where the moments are listed."""
    passed: int = 0

    def watch(self) -> "Moments":
        """From now on, in this process."""
        write = Path.write_bytes

        def write_in_two(path: Path, content: bytes) -> int:
            if f"{path}".startswith(f"{self.folder}{os.sep}"):
                write(path, content[: len(content) // 2])
                self.pass_by(f"half of {self._named(path)}")
            return write(path, content)

        Path.write_bytes = write_in_two  # type: ignore[method-assign,assignment]
        sys.addaudithook(self._hear)
        return self

    def pass_by(self, what: str) -> None:
        self.passed += 1
        if self.note:
            with self.note.open("a") as file:
                print(what, file=file)
        described = self.text is not None and self.text in what
        if self.passed in self.numbers or described:
            self.text = None if described else self.text
            for number in self.signals:
                os.kill(os.getpid(), number)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or (event == "open" and not int(arguments[2]) & (os.O_WRONLY | os.O_RDWR)):
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if path == f"{self.folder}" or path.startswith(f"{self.folder}{os.sep}"):
            self.pass_by(f"{event.removeprefix('os.')} {self._named(Path(path))}")

    def _named(self, path: Path) -> str:
        return f"{path.relative_to(self.folder)}".replace(f".{os.getpid()}.draft", ".PID.draft")


def train(recipe: str, folder: str, resume: bool = False, **moments: Any) -> int:
    """A run by the package's own function."""
    place = Path(folder)
    _without_pictures()
    _copy_moments(place)
    watched = Moments(place, **_as_paths(moments)).watch()
    keeping = Keeping(checkpoint_every=EVERY, on_step=lambda step: watched.pass_by(f"step {step.step}"))
    run_recipe(load_recipe(recipe), SEED, place, torch.device("cpu"), keeping=keeping, resume=resume)
    return 0


def command(words: list[str], folder: str, errors: str, ignored: int | None = None, **moments: Any) -> int:
    """A run by the command line, whose standard error goes to a file."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if ignored:
        signal.signal(ignored, signal.SIG_IGN)
    _without_pictures()
    _copy_moments(Path(folder))
    Moments(Path(folder), **_as_paths(moments)).watch()
    return main(words)


def _as_paths(moments: dict[str, Any]) -> dict[str, Any]:
    return moments | ({"note": Path(moments["note"])} if "note" in moments else {})


def _without_pictures() -> None:
    def save(figure: object, path: Path) -> list[Path]:
        written = [path.with_suffix(kind) for kind in (".svg", ".png")]
        for each in written:
            each.write_bytes(b"")
        return written

    figures.save_figure = save
    figures.accuracy_figure = figures.trace_figure = lambda *arguments: None  # type: ignore[assignment,return-value]


def _copy_moments(folder: Path) -> None:
    """Keep a copy of the last checkpoint, moments included, when the run forgets it."""
    forget = RunFolder.forget_checkpoints

    def copy_and_forget(run: RunFolder) -> None:
        newest = sorted((run.path / "checkpoints").glob("step-*/manifest.json"))
        if newest and not (copy := folder.with_name(f"{folder.name} moments")).exists():
            shutil.copytree(newest[-1].parent, copy)
        forget(run)

    RunFolder.forget_checkpoints = copy_and_forget  # type: ignore[method-assign]


def _child(request: dict[str, Any]) -> int:
    """The exit code of a forked child; negative, if a signal ended it."""
    work = {"train": train, "command": command}[request.pop("do")]
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            signal.alarm(_SECONDS)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may have it ignored
            code = work(**request)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    import torch._dynamo  # the first optimizer would import it, which takes longer than a run

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(_child(json.loads(line))), flush=True)
