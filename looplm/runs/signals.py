"""Being told to stop: finish the step, keep what is done, say how to go on."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
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

    def __reduce__(self) -> tuple[type["Stopped"], tuple[int, str]]:
        return type(self), (self.signum, str(self))  # so that it comes back from another process


class Wish:
    """Whether someone wants the run to stop."""

    signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None


@contextmanager
def heeding(on_first: Callable[[], None] = lambda: None) -> Iterator[Wish]:
    """Within it, a first signal is only noted, for the run to stop where it is whole; a second one stops it at once.

    What the process was started to ignore (under `nohup`, or in a shell's background) stays ignored. Outside the main
    thread, where Python gives no signals, nothing is heeded. Forked workers, to which a terminal sends its signals too,
    leave the first one to their parent, which ends them.

    Args:
        on_first: told of the first signal, at any moment of the program.

    Raises:
        Stopped: at the second signal.
    """
    wish, heeder = Wish(), os.getpid()

    def note(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != heeder:
            signal.signal(signum, signal.SIG_DFL)
            return
        if wish:
            raise Stopped(signum, "stopped at once.")
        wish.signum = signum
        on_first()

    with handled(note):
        yield wish


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within it, the signals that ask for an end, unless they are ignored, go to the handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in heeded:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in heeded.items():
            signal.signal(number, old)
