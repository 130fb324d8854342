"""A run's lock: one process at a time works in a folder. It ends with the process, however that ends."""

import os
import time
from pathlib import Path

from looplm.errors import InputError

_TRIES, _SECONDS_BETWEEN_TRIES = 5, 0.1


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
    """The run's lock, held until it is closed or the process ends, however it ends.

    Raises:
        InputError: if another process holds it; one that only looks holds it for a moment, which is waited for.
    """
    try:
        lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"cannot write in {path}: {error.strerror}. Give another place.") from None
    for _ in range(_TRIES):
        if _take(lock):
            return lock
        time.sleep(_SECONDS_BETWEEN_TRIES)
    os.close(lock)
    raise InputError(f"another process works in {path}; wait for it, or stop it.")


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
