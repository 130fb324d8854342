"""A run's folder: claimed when the run starts, with a note of what is done, so that it can go on from any moment.

run.json     what the run is, and which stages are done    config.toml   the resolved recipe
log.jsonl    a header, then one line a step                checkpoints/  what training goes on from
"""

import contextlib
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import tomli_w

from looplm.errors import InputError
from looplm.files import to_json, write_file
from looplm.runs.checkpoint import load_progress, save_progress
from looplm.settings import Table, as_table, read_toml
from looplm.train.recipe import Recipe
from looplm.train.trainer import Step, Trainer

SCHEMA = 2
"""Version of run.json and log.jsonl."""
_KEPT = 2
"""Checkpoints that are kept, the newest."""


def default_folder(recipe: str) -> Path:
    """runs/<recipe>/<UTC time>, in the current folder."""
    return Path("runs") / recipe / datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")


class RunFolder:
    """A folder that one process at a time works in.

    Spec: [training.claimed][], [training.resume][], [training.log][].
    """

    def __init__(self, path: Path, note: dict[str, Any], lock: IO[str]) -> None:
        self.path, self._note, self._lock = path, note, lock

    @classmethod
    def claim(cls, path: Path, recipe: Recipe, source: dict[str, Any]) -> "RunFolder":
        """A new folder, in which the run begins.

        Raises:
            InputError: if there is anything at the path, or it cannot be written to.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            raise InputError(_already(path)) from None
        except OSError as error:
            raise InputError(f"cannot make the folder {path}: {error.strerror}. Give another place.") from None
        note = {"schema": SCHEMA, "recipe": recipe.name, "seed": source["seed"], "steps": recipe.training.steps, "done": []}
        run = cls(path, note, _locked(path))
        write_file(path / "config.toml", tomli_w.dumps(as_table(recipe)).encode())
        write_file(path / "log.jsonl", (json.dumps({"schema": SCHEMA, **source}) + "\n").encode())
        run._write_note()
        return run

    @classmethod
    def resume(cls, path: Path, recipe: Recipe, seed: int) -> "RunFolder":
        """The folder of a run that was begun with this recipe and seed.

        Raises:
            InputError: if there is none, another process works in it, or recipe or seed differ; it says in what.
        """
        note = read_note(path)
        theirs, mine = read_toml(path / "config.toml"), as_table(recipe)
        differs = list(_differences(theirs, _plain(mine)))
        if note["seed"] != seed:
            differs.append(f"`seed` is {note['seed']} there and {seed} here")
        if differs:
            raise InputError(f"{path} is another run: {'; '.join(differs)}. Give the same command, or another folder.")
        return cls(path, note, _locked(path))

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.close()

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

    def keep(self, trainer: Trainer) -> Path:
        """Keep what training can go on from; older checkpoints go, but for one."""
        folder = self.path / "checkpoints" / f"step-{trainer.steps_done:09d}"
        save_progress(folder, trainer.state_dict())
        for old in _checkpoints(self.path)[_KEPT:]:
            _remove(old)
        return folder

    def restore(self, trainer: Trainer, on_message: Callable[[str], None] = lambda message: None) -> None:
        """Put a trainer where the newest whole checkpoint stands, and cut the log there; without one it starts anew."""
        for folder in _checkpoints(self.path):
            try:
                trainer.load_state_dict(load_progress(folder))
                break
            except InputError as error:
                on_message(f"passed over: {error}")
        lines = (self.path / "log.jsonl").read_bytes().splitlines(keepends=True)
        write_file(self.path / "log.jsonl", b"".join(lines[: 1 + trainer.steps_done]))

    @contextlib.contextmanager
    def log(self) -> Iterator[Callable[[Step], None]]:
        """Gives what writes a step's line."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as log:

            def write(step: Step) -> None:
                log.write(json.dumps({name: value for name, value in asdict(step).items() if value is not None}) + "\n")
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


def read_note(path: Path) -> dict[str, Any]:
    """What a run's folder says of it: recipe, seed, steps, and the stages that are done.

    Raises:
        InputError: if it is no run, or one of another schema.
    """
    try:
        note = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "was written by an older version of looplm" if (path / "log.jsonl").exists() else "is no run"
        raise InputError(f"{path} {what}: it has no run.json. Give the folder of a run that this version began.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(f"{path / 'run.json'} is damaged; the run cannot go on. Start it anew in another folder.") from None
    if not isinstance(note, dict) or note.get("schema") != SCHEMA:
        raise InputError(f"{path} is a run of another schema than {SCHEMA}; use the version of looplm that wrote it.")
    return note


def read_steps(path: Path) -> list[Step]:
    """The steps that a run's log holds."""
    lines = (path / "log.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    return [Step(**json.loads(line)) for line in lines]


def is_worked_in(path: Path) -> bool:
    """Whether a process works in this run now."""
    try:
        _locked(path).close()
    except InputError:
        return True
    return False


def _locked(path: Path) -> IO[str]:
    """The run's lock, held until it is closed or the process ends, however it ends."""
    lock = (path / ".lock").open("w")
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # no flock on Windows: the claim alone keeps runs apart
        pass
    except OSError:
        lock.close()
        raise InputError(f"another process works in {path}; wait for it, or stop it.") from None
    return lock


def _checkpoints(path: Path) -> list[Path]:
    """The newest first."""
    return sorted((path / "checkpoints").glob("step-*"), reverse=True)


def _remove(folder: Path) -> None:
    """The manifest goes first, so that a rest is never taken for whole."""
    (folder / "manifest.json").unlink(missing_ok=True)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _already(path: Path) -> str:
    if (path / "run.json").exists():
        done = "complete" in read_note(path)["done"]
        advice = "it is complete; give another folder" if done else "add --resume to go on with it, or give another folder"
        return f"{path} holds a run already: {advice}."
    return f"{path} already exists; nothing is overwritten. Give another folder, or remove it first."


def _plain(table: Table) -> Any:
    """As it is after being written as TOML and read."""
    return tomllib.loads(tomli_w.dumps(table))


def _differences(theirs: Any, mine: Any, name: str = "") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for key in dict.fromkeys([*theirs, *mine]):
            yield from _differences(theirs.get(key), mine.get(key), f"{name}.{key}" if name else key)
    elif theirs != mine:
        yield f"`{name}` is {theirs!r} there and {mine!r} here"


def state_of(path: Path) -> dict[str, Any]:
    """Recipe and seed of a run, and how far it is, in words."""
    try:
        note = read_note(path)
    except InputError as error:
        return {"recipe": "?", "seed": "?", "state": str(error)}
    lines = (path / "log.jsonl").read_bytes().count(b"\n") - 1
    if "complete" in note["done"]:
        state = "complete"
    elif is_worked_in(path):
        state = f"being worked in, step {lines} of {note['steps']}"
    elif note["done"]:
        state = f"stopped after {note['done'][-1]}; --resume goes on"
    else:
        state = f"stopped at step {lines} of {note['steps']}; --resume goes on"
    return {"recipe": note["recipe"], "seed": note["seed"], "steps": lines, "done": note["done"], "state": state}
