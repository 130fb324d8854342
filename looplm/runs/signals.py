"""Being told to stop: finish the step, keep what is done, say how to go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A run that ended because it was told to; what it has done is kept.

    Args:
        signum: what told it.
        message: what is kept, and how to go on.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


class Wish:
    """Whether someone wants the run to stop."""

    signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None


@contextmanager
def heeding() -> Iterator[Wish]:
    """Within it, a first signal is only noted, for the run to stop where it is whole; a second one interrupts at once."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def note(signum: int, frame: FrameType | None) -> None:
        if wish:
            raise KeyboardInterrupt
        wish.signum = signum

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
