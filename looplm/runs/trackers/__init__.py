"""Experiment trackers: the numbers of a run in a tool that its reader uses anyway.

    with open_tracker("tensorboard", "first-light", config, run_folder) as tracker:
        tracker.log(1, {"loss": 2.5})

A tracker keeps its files under `<run>/trackers/<name>/` and sends nothing anywhere. It works in a process of its own, so that
neither what it prints, nor the variables it reads, nor its failure reaches the training. Each file of this folder is one; its
packages come with `pip install "looplm[trackers]"` and are imported when it is opened.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from looplm.choices import Choices
from looplm.errors import InputError


class Tracker(ABC):
    """Keeps the numbers of one run.

    A choice of this folder is a subclass which gives `package` and `view`, and is made from
    `run_name: str, config: dict[str, Any], folder: Path, first_step: int`. Beyond a `first_step` of 1 it continues the run that
    `folder` holds, and replaces what was kept of that step and later ones, as far as its tool can.
    It may print, set environment variables and raise: it is alone in its process.
    """

    package: str
    """Name under which its tool is imported."""
    view: str
    """A command for the shell that shows, or uploads, what was kept; a choice writes `{folder}` for its folder."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values of a step; steps come in ascending order."""

    @abstractmethod
    def finish(self) -> None:
        """Write all that is not written yet, and close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.finish()


TRACKERS: Choices[Tracker] = Choices("looplm.runs.trackers", "tracker")


def find_tracker(name: str) -> type[Tracker]:
    """The tracker of this name, or of the path `package.module:Class`, whose package is here but not imported yet.

    Raises:
        InputError: if there is no such tracker, or its package is not installed.
    """
    choice = TRACKERS.find(name)
    package = find_spec(choice.package)
    if package is None or package.origin is None:  # a folder of that name that happens to lie here has no origin
        raise InputError(
            f'the tracker {name!r} needs the package {choice.package!r}, which is not installed: pip install "looplm[trackers]"'
        )
    return choice


def open_tracker(
    name: str,
    run_name: str,
    config: Mapping[str, Any],
    folder: Path,
    *,
    first_step: int = 1,
    on_message: Callable[[str], None] = print,
) -> Tracker:
    """Start a tracker, and return at once.

    A tracker that fails later than here is switched off and says so to `on_message`, once; its `log` and `finish` then do
    nothing. None of its methods waits for it but `finish`, which waits for a minute at most.

    Args:
        name: a tracker of `TRACKERS.names()`, or `package.module:Class`.
        run_name: what the tracker calls the run.
        config: a table that the tracker shows beside the run; what JSON does not know is kept as text.
        folder: the run's; it may not be moved before `finish`.
        first_step: of this part of the run. 1 starts a new run; more continues the one that was kept in `folder` before.
        on_message: told, in the thread that calls `log` or `finish`, that the tracker failed, why, and where to read more.

    Returns:
        The tracker. Leaving it as a context finishes it, by whatever way it is left.

    Raises:
        InputError: if there is no such tracker, its package is not installed, or the folder cannot be written to.
    """
    choice = find_tracker(name)
    from looplm.runs.trackers._process import TrackerProcess

    return TrackerProcess(name, choice, run_name, config, folder, first_step, on_message)
