"""Trackio: a SQLite file and a dashboard on this machine."""

import os
import sqlite3
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from looplm.runs.trackers import Tracker

PROJECT = "looplm"


class Trackio(Tracker):
    """A continued run replaces what was kept of its later steps. Values that are not finite are kept as text."""

    package = "trackio"
    view = f"TRACKIO_DIR={{folder}} trackio show --project {PROJECT}"

    def __init__(self, run_name: str, config: dict[str, Any], folder: Path, first_step: int) -> None:
        for name in [name for name in os.environ if name.startswith("TRACKIO_")]:
            del os.environ[name]  # they name servers and spaces to send to
        os.environ |= {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
        import trackio

        self._failure = ""
        warnings.showwarning = self._hear
        if first_step > 1:
            _forget(folder / f"{PROJECT}.db", run_name, first_step)
        self._run = trackio.init(
            PROJECT,
            name=run_name,
            config=config,
            resume="allow" if first_step > 1 else "never",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values of a step.

        Raises:
            RuntimeError: if this or an earlier step could not be kept.
        """
        self._run.log(dict(values), step=step)
        self._check()

    def finish(self) -> None:
        """Write and close."""
        self._run.finish()
        self._check()

    def _hear(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Trackio only warns when it fails, perhaps in its thread; that a name is reserved is no failure."""
        print(f"{filename}:{lineno}: {category.__name__}: {message}", flush=True)
        if Path(filename).parent.name == "trackio" and not str(message).startswith("Reserved keys"):
            self._failure = self._failure or str(message)

    def _check(self) -> None:
        if self._failure:
            raise RuntimeError(self._failure)


def _forget(database: Path, run_name: str, first_step: int) -> None:
    """Drop the steps from `first_step` on that the latest run of this name has; trackio would show them twice."""
    if database.exists():
        latest = "SELECT run_id FROM metrics WHERE run_name = ? ORDER BY id DESC LIMIT 1"
        connection = sqlite3.connect(database)
        with connection:
            connection.execute(f"DELETE FROM metrics WHERE run_id = ({latest}) AND step >= ?", (run_name, first_step))
        connection.close()


CHOICE = Trackio
