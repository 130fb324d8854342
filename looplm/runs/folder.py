"""A run's folder: claimed when the run starts, with a note of what is done, so that it can go on from any moment.

run.json     what the run is, and which stages are done    config.toml   the resolved recipe
log.jsonl    a header, then one line a step                checkpoints/  what training goes on from
"""

import contextlib
import itertools
import json
import math
import os
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import tomli_w

from looplm.errors import InputError
from looplm.files import refuse_existing, remove_drafts, to_json, write_file
from looplm.runs.checkpoint import load_progress, save_progress
from looplm.runs.lock import is_worked_in, locked, release
from looplm.runs.record import ANEW, CIRCUMSTANCES, SCHEMA, is_unborn, read_header, read_note, read_steps, whole_steps
from looplm.settings import Table, as_table
from looplm.train.recipe import Recipe
from looplm.train.trainer import Step, Trainer

_KEPT = 2
"""Checkpoints that are kept, the newest."""


def default_folder(recipe: str) -> Path:
    """A free place for a run in the current folder: runs/<recipe>/<UTC time>, with a number behind it if that is taken."""
    path = Path("runs") / recipe / datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    places = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(place for place in places if not os.path.lexists(place))


class RunFolder:
    """A folder that one process at a time works in.

    Spec: [training.claimed][], [training.resume][], [training.log][].
    """

    def __init__(self, path: Path, note: dict[str, Any], lock: int) -> None:
        self.path, self._note, self._lock = path, note, lock

    @classmethod
    def claim(cls, path: Path, recipe: Recipe, source: dict[str, Any]) -> "RunFolder":
        """A new folder, in which the run begins.

        Args:
            path: where; nothing may be there.
            recipe: what is trained.
            source: provenance, for the header of the log.

        Raises:
            InputError: if there is anything at the path, or it cannot be written to; then nothing is left there.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {path.parent}: {error.strerror}. Give another place.") from None
        try:
            path.mkdir()
        except FileExistsError:
            _refuse_taken(path)
            raise
        except OSError as error:
            raise InputError(f"cannot make the folder {path}: {error.strerror}. Give another place.") from None
        lock = locked(path)
        try:
            return cls._begin(path, recipe, source, lock)
        except BaseException:
            release(lock)
            shutil.rmtree(path, ignore_errors=True)
            raise

    @classmethod
    def resume(cls, path: Path, recipe: Recipe, source: dict[str, Any]) -> "RunFolder":
        """The folder of a run that was begun with this recipe and seed.

        Raises:
            InputError: if there is none, another process works in it, it is damaged, or recipe or seed differ; it says in
                what.
        """
        unborn = path.is_dir() and is_unborn(path)
        if not unborn:
            read_note(path)  # before anything is written there
        lock = locked(path)
        try:
            remove_drafts(path)
            if unborn:
                return cls._begin(path, recipe, source, lock)
            note = read_note(path)
            differs = list(_differences(_read_config(path), _plain(as_table(recipe))))
            if note["seed"] != source["seed"]:
                differs.append(f"`seed` is {note['seed']} there and {source['seed']} here")
            if read_header(path).get("carried") != source.get("carried"):
                differs.append(f"the files that go with the model, {', '.join(source.get('carried', {}))}, have changed")
            if differs:
                raise InputError(f"{path} is another run: {'; '.join(differs)}. Give the same command, or another folder.")
            return cls(path, note, lock)
        except BaseException:
            release(lock)
            raise

    @classmethod
    def _begin(cls, path: Path, recipe: Recipe, source: dict[str, Any], lock: int) -> "RunFolder":
        what = {"recipe": recipe.name, "seed": source["seed"], "steps": recipe.training.steps}
        run = cls(path, {"schema": SCHEMA, **what, "done": [], "resumed": []}, lock)
        write_file(path / "config.toml", tomli_w.dumps(as_table(recipe)).encode())
        write_file(path / "log.jsonl", (json.dumps({"schema": SCHEMA, **source}) + "\n").encode())
        run._write_note()
        return run

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        release(self._lock)

    @property
    def complete(self) -> bool:
        """Whether every stage is done."""
        return "complete" in self._note["done"]

    def stage(self, name: str, make: Callable[[], None]) -> None:
        """Do a stage, unless it is done; what it writes has to bear being written again."""
        if name in self._note["done"]:
            return
        make()
        self._note["done"].append(name)
        self._write_note()

    def source(self) -> dict[str, Any]:
        """The provenance of all sessions: the log's header, and from which step on what was otherwise.

        Spec: [training.sessions][].
        """
        header = {name: value for name, value in read_header(self.path).items() if name != "schema"}
        return header | ({"resumed": self._note["resumed"]} if self._note["resumed"] else {})

    def goes_on(self, steps_done: int, source: dict[str, Any]) -> None:
        """Note what is otherwise from the coming step on than when the run was begun, or last went on.

        Spec: [training.sessions][].
        """
        known = read_header(self.path)
        for session in self._note["resumed"]:
            known |= session
        differs = {name: source[name] for name in CIRCUMSTANCES if source[name] != known.get(name)}
        if differs:
            self._note["resumed"].append({"from_step": steps_done + 1, **differs})
            self._write_note()

    def keep(self, trainer: Trainer) -> Path:
        """Keep what training can go on from; older checkpoints go, but for one."""
        folder = self.path / "checkpoints" / f"step-{trainer.steps_done:09d}"
        save_progress(folder, trainer.state_dict())
        for old in _checkpoints(self.path)[_KEPT:]:
            _remove(old)
        return folder

    def restore(self, trainer: Trainer, on_remark: Callable[[str], None] = lambda remark: None) -> None:
        """Put a trainer where the newest whole checkpoint stands, and cut the log there; without one it starts anew.

        Args:
            trainer: fresh.
            on_remark: told of each checkpoint that is passed over, and why.
        """
        read_header(self.path)
        logged, found = whole_steps(self.path), _checkpoints(self.path)
        for folder in found:
            try:
                state = load_progress(folder, trainer)
                steps = state["progress"]["steps"]
                if steps > logged:
                    raise InputError(f"{self.path / 'log.jsonl'} is damaged at step {logged + 1}, before {folder.name}.")
            except InputError as error:
                on_remark(f"passed over: {error}")
                continue
            trainer.load_state_dict(state)
            break
        if found:
            on_remark(
                f"going on from step {trainer.steps_done}"
                if trainer.steps_done
                else "no checkpoint is whole: from step 1 again"
            )
        lines = (self.path / "log.jsonl").read_bytes().splitlines(keepends=True)
        write_file(self.path / "log.jsonl", b"".join(lines[: 1 + trainer.steps_done]))

    @contextlib.contextmanager
    def log(self) -> Iterator[Callable[[Step], None]]:
        """Gives what writes a step's line."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as log:

            def write(step: Step) -> None:
                log.write(json.dumps(_as_line(step)) + "\n")
                log.flush()

            yield write

    def steps(self) -> list[Step]:
        """The steps that the log holds."""
        return read_steps(self.path)

    def forget_checkpoints(self) -> None:
        """Remove what training went on from; it is done."""
        for folder in _checkpoints(self.path):
            _remove(folder)
        with contextlib.suppress(OSError):
            (self.path / "checkpoints").rmdir()

    def _write_note(self) -> None:
        write_file(self.path / "run.json", to_json(self._note))


def _as_line(step: Step) -> dict[str, Any]:
    """A step in JSON, which knows no infinite numbers: the norm of a gradient that overflowed in float16 is null."""
    values = {name: value for name, value in asdict(step).items() if value is not None}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _refuse_taken(path: Path) -> None:
    """Say what is at a path that was to be a new run."""
    if path.is_dir() and any(path.iterdir()) and is_unborn(path):
        raise InputError(f"{path} holds a run that was cut off as it began: add --resume to begin it, or give another folder.")
    if (path / "run.json").exists():
        if "complete" in read_note(path)["done"]:
            advice = "it is complete; give another folder"
        elif is_worked_in(path):
            advice = "another process works in it; give another folder"
        else:
            advice = "add --resume to go on with it, or give another folder"
        raise InputError(f"{path} holds a run already: {advice}.")
    refuse_existing(path)


def _read_config(path: Path) -> Table:
    try:
        return tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path / 'config.toml'} is damaged; {ANEW}.") from None


def _checkpoints(path: Path) -> list[Path]:
    """The newest first."""
    return sorted((each for each in (path / "checkpoints").glob("step-*") if each.is_dir()), reverse=True)


def _remove(folder: Path) -> None:
    """The manifest goes first, so that a rest is never taken for whole."""
    (folder / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _plain(table: Table) -> Any:
    """As it is after being written as TOML and read."""
    return tomllib.loads(tomli_w.dumps(table))


def _differences(theirs: Any, mine: Any, name: str = "") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for key in dict.fromkeys([*theirs, *mine]):
            yield from _differences(theirs.get(key), mine.get(key), f"{name}.{key}" if name else key)
    elif theirs != mine:
        yield f"`{name}` is {theirs!r} there and {mine!r} here"
