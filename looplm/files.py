"""Writing so that nothing is ever half there."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from looplm.errors import InputError

_DRAFT = re.compile(r"\..+\.\d+\.draft")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at `path` complete, or not at all.

    Gives a hidden folder beside it to write in. Leaving normally renames it to `path`; leaving by any exception,
    Ctrl-C included, removes it.

    Raises:
        InputError: if `path` exists already, or its place cannot be written to.

    Spec: [training.nothing-half-written][].
    """
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"cannot write to {path.parent}: {error.strerror}. Give another place.") from None
    try:
        yield draft
        refuse_existing(path)
        draft.chmod(0o755)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears at `path` complete, or not at all, also if the power fails; an existing one is replaced.

    Raises:
        InputError: if it cannot be written, for example because the disk is full.

    Spec: [training.nothing-half-written][].
    """
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        with draft.open("r+b") as file:
            os.fsync(file.fileno())  # else the new name may reach the disk before the content does
        draft.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}. Nothing was written there.") from None
    finally:
        draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """Where this process writes what shall appear at `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.draft")


def is_draft(name: str) -> bool:
    """Whether a file or folder of this name is what a process writes before it appears."""
    return bool(_DRAFT.fullmatch(name))


def to_json(value: Any) -> bytes:
    """Readable JSON, the same bytes for the same value."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def refuse_existing(path: Path) -> None:
    """Raise InputError if there is anything at `path`, a link that leads nowhere included."""
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link that leads nowhere ({os.readlink(path)}). Give another place, or remove it first.")
    if path.exists():
        raise InputError(f"{path} already exists; nothing is overwritten. Give another place, or remove it first.")
    refuse_unwritable(path)


def refuse_unwritable(path: Path) -> None:
    """Raise InputError, before the work whose result shall stand there, if no file can be written at `path`."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not path.name:
        raise InputError(f"cannot write {path}: it is a folder. Give the name of a file.")
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "cannot be written to" if there.is_dir() else "is no folder"
        raise InputError(f"cannot write {path}: {there} {why}. Give another place.")


def refuse_no_figure(path: Path) -> None:
    """The same for a figure, which is written as .svg and .png whichever of the two its name has, or none."""
    if path.suffix not in ("", ".svg", ".png"):
        raise InputError(f"a figure is written as .svg and .png: got {path}; give a name that ends in one of them.")
    refuse_unwritable(path)


def remove_drafts(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left behind below a folder in which nobody else writes."""
    for path in [path for path in folder.rglob(".*") if is_draft(path.name)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
