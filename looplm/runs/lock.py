"""A run's lock: one process at a time works in a folder. It ends with the process, however that ends."""

import os
import time
from pathlib import Path

from looplm.errors import InputError

_TRIES, _SECONDS_BETWEEN_TRIES = 5, 0.1
_held: set[int] = set()
"""Locks of this process."""


def is_worked_in(path: Path) -> bool:
    """Whether a process works in this run now."""
    try:
        lock = os.open(path / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _take(lock)
    finally:
        os.close(lock)


def locked(path: Path) -> int:
    """The run's lock, held until it is released or the process ends, however it ends.

    Raises:
        InputError: if another process holds it; one that only looks holds it for a moment, which is waited for.
    """
    try:
        lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"cannot write in {path}: {error.strerror}. Give another place.") from None
    for _ in range(_TRIES):
        if _take(lock):
            _held.add(lock)
            return lock
        time.sleep(_SECONDS_BETWEEN_TRIES)
    os.close(lock)
    raise InputError(f"another process works in {path}; wait for it, or stop it.")


def release(lock: int) -> None:
    """Let other processes work in the run."""
    _held.discard(lock)
    os.close(lock)


def _leave_to_parent() -> None:
    """In a forked worker: a lock would last as long as the worker, which may outlive a parent that was killed."""
    for lock in _held:
        os.close(lock)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _take(lock: int) -> bool:
    """Whether the lock is ours now."""
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # none on Windows, nor on some file systems: the claim alone keeps runs apart
        pass
    return True
