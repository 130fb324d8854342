"""A tracker in a process of its own, seen from the training: lines of JSON go there, and nothing comes back.

The other end is `__main__.py`. A thread hands the lines over, so that the training never waits for the tracker.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE, STDOUT, Popen, TimeoutExpired
from threading import Thread
from typing import Any

from looplm.errors import InputError
from looplm.runs.trackers import Tracker

FINISH_SECONDS = 60
"""How long a tracker may take to write what it holds."""
OUTPUT = "output.txt"
"""What a tracker's process prints, in the tracker's folder."""
FAILED = "looplm: tracker failed: "
"""How the line begins that names the exception; a tool may print more after it."""


class TrackerProcess(Tracker):
    """A tracker that runs apart; `open_tracker` makes it and says what its arguments are."""

    def __init__(
        self,
        name: str,
        choice: type[Tracker],
        run_name: str,
        config: Mapping[str, Any],
        folder: Path,
        first_step: int,
        on_message: Callable[[str], None],
    ) -> None:
        self.folder = folder.absolute() / "trackers" / name.replace(":", ".")
        self.package, self.view = choice.package, choice.view.format(folder=shlex.quote(str(self.folder)))
        self._name, self._on_message, self._is_open = name, on_message, True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            output = (self.folder / OUTPUT).open("ab")
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error.strerror}. Give the run another folder.") from None
        self._printed_before = output.tell()
        with output:
            self._process = Popen(
                [sys.executable, "-P", "-m", "looplm.runs.trackers", name],
                bufsize=0,
                stdin=PIPE,
                stdout=output,
                stderr=STDOUT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
                start_new_session=True,  # Ctrl-C stops the training, which then finishes the tracker
            )
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._sender = Thread(target=self._send, name=f"tracker {name}", daemon=True)
        self._sender.start()
        self._put({"run_name": run_name, "config": config, "folder": str(self.folder), "first_step": first_step})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand a step's values over; nothing waits."""
        if not self._is_open:
            return
        if self._process.poll() is None:
            self._put({"step": step, "values": {key: float(value) for key, value in values.items()}})
        else:
            self._close(f"the training goes on without it: {self._reason()}")

    def finish(self) -> None:
        """Wait until all is written, then close; does nothing the second time."""
        if not self._is_open:
            return
        self._put({})
        try:
            failed = self._process.wait(FINISH_SECONDS) != 0
            self._close(f"not all was kept: {self._reason()}" if failed else None)
        except TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._close(f"not all was kept: it was not done after {FINISH_SECONDS} seconds")

    def _put(self, message: Mapping[str, Any]) -> None:
        self._lines.put(json.dumps(message, default=str).encode() + b"\n")

    def _send(self) -> None:
        """Write what is queued until an empty line or the process's end, which `log` and `finish` notice."""
        assert self._process.stdin is not None
        with self._process.stdin as pipe:
            while line := self._lines.get():
                rest = memoryview(line)
                try:
                    while rest:
                        rest = rest[pipe.write(rest) :]
                except OSError:
                    return

    def _close(self, failure: str | None) -> None:
        """Close this end, after the process has ended."""
        self._is_open = False
        self._lines.put(b"")
        self._sender.join()
        if failure:
            self._on_message(f"the tracker {self._name} is switched off; {failure} (see {self.folder / OUTPUT}).")

    def _reason(self) -> str:
        """Why the process ended: what `__main__.py` says of it, or else its last line or its exit code."""
        if self._process.returncode != 1:
            return f"its process ended with code {self._process.returncode}"
        printed = (self.folder / OUTPUT).read_bytes()[self._printed_before :].decode(errors="replace")
        lines = [line for line in printed.splitlines() if line.strip()]
        named = [line.removeprefix(FAILED) for line in lines if line.startswith(FAILED)]
        return (named or lines or ["it says nothing"])[-1]
