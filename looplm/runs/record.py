"""What a run's folder says of it: its note (run.json) and its log (log.jsonl)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from looplm.errors import InputError
from looplm.files import is_draft
from looplm.runs.lock import is_worked_in
from looplm.train.trainer import Step

SCHEMA = 2
"""Version of run.json and log.jsonl."""
CIRCUMSTANCES = ("looplm", "commit", "device", "dtype", "threads", "torch", "python", "execution")
"""Of the header: what may be otherwise when a run goes on."""
ANEW = "the run cannot go on. Start it anew in another folder"
_NOTE = {"recipe": str, "seed": int, "steps": int, "done": list, "resumed": list}
"""What run.json says beside the schema, and of which type."""


def read_note(path: Path) -> dict[str, Any]:
    """What a run's folder says of it: recipe, seed, steps, the stages that are done, and where it went on otherwise.

    Raises:
        InputError: if it is no run, one of another schema, or damaged.
    """
    try:
        note = json.loads((path / "run.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        what = "does not exist" if not path.exists() else "is no run"
        if (path / "log.jsonl").exists():
            what = "was written by an older version of looplm"
        raise InputError(f"{path} {what}: it has no run.json. Give the folder of a run that this version began.") from None
    except (OSError, ValueError):
        raise InputError(f"{path / 'run.json'} is damaged; {ANEW}.") from None
    if not isinstance(note, dict) or "schema" not in note:
        raise InputError(f"{path / 'run.json'} is damaged; {ANEW}.")
    if note["schema"] != SCHEMA:
        raise InputError(
            f"{path} is a run of schema {note['schema']!r}; this version of looplm reads schema {SCHEMA}. "
            "Use the version that wrote it."
        )
    if any(type(note.get(name)) is not kind for name, kind in _NOTE.items()):
        raise InputError(f"{path / 'run.json'} is damaged; {ANEW}.")
    return note


def read_header(path: Path) -> dict[str, Any]:
    """The first line of a run's log: its provenance when it began.

    Raises:
        InputError: if it is damaged.
    """
    try:
        with (path / "log.jsonl").open("rb") as log:
            header = json.loads(log.readline())
    except (OSError, ValueError):
        header = None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA or not {"seed", *CIRCUMSTANCES} <= set(header):
        raise InputError(f"{path / 'log.jsonl'} is damaged: its first line is no header; {ANEW}.")
    return header


def read_steps(path: Path) -> list[Step]:
    """The steps that a run's log holds.

    Raises:
        InputError: if a line is damaged.
    """
    lines = _step_lines(path)
    steps = list(_whole(lines))
    if len(steps) < len(lines):
        raise InputError(f"{path / 'log.jsonl'} is damaged: its line {len(steps) + 2} is not that of step {len(steps) + 1}.")
    return steps


def whole_steps(path: Path) -> int:
    """How many steps the log holds before it ends or is damaged."""
    return sum(1 for _ in _whole(_step_lines(path)))


def is_unborn(path: Path) -> bool:
    """Whether the folder is empty, or holds what a claim writes before the note that makes it a run."""
    names = {each.name for each in path.iterdir()}
    written = {name for name in names if not is_draft(name)}
    return not names or (".lock" in names and written <= {".lock", "config.toml", "log.jsonl"})


def state_of(path: Path) -> dict[str, Any]:
    """Recipe and seed of a run, and how far it is, in words."""
    if is_unborn(path):
        state = "being begun" if is_worked_in(path) else "cut off as it began; --resume begins it"
        return {"recipe": "?", "seed": "?", "state": state}
    try:
        note, lines = read_note(path), len(_step_lines(path))
    except InputError as error:
        return {"recipe": "?", "seed": "?", "state": str(error)}
    if "complete" in note["done"]:
        state = "complete"
    elif is_worked_in(path):
        state = f"being worked in, step {lines} of {note['steps']}"
    elif note["done"]:
        state = f"stopped after {note['done'][-1]}; --resume goes on"
    else:
        state = f"stopped at step {lines} of {note['steps']}; --resume goes on"
    return {"recipe": note["recipe"], "seed": note["seed"], "steps": lines, "done": note["done"], "state": state}


def _step_lines(path: Path) -> list[bytes]:
    """The log's lines but for its header; a last one that was cut off is none."""
    try:
        lines = (path / "log.jsonl").read_bytes().splitlines(keepends=True)
    except OSError:
        raise InputError(f"{path / 'log.jsonl'} cannot be read; {ANEW}.") from None
    return [line for line in lines[1:] if line.endswith(b"\n")]


def _whole(lines: list[bytes]) -> Iterator[Step]:
    """The steps from the first on, up to a line that is damaged or another step's."""
    for number, line in enumerate(lines, 1):
        try:
            step = Step(**json.loads(line))
        except (ValueError, TypeError):
            return
        if step.step != number:
            return
        yield step
