"""Weights & Biases, offline: no login, no network; `wandb sync` uploads a run when its owner wants that."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from looplm.runs.trackers import Tracker


class Wandb(Tracker):
    """Each part of a run lies in a folder of its own; they share the run's id, so that syncing puts them together.

    What was kept of a step is never replaced: a step that two parts have in common is in both.
    """

    package = "wandb"
    view = "wandb sync {folder}/wandb/offline-run-*"

    def __init__(self, run_name: str, config: dict[str, Any], folder: Path, first_step: int) -> None:
        os.environ |= {
            "WANDB_MODE": "offline",
            "WANDB_ERROR_REPORTING": "false",  # it would report its own failures
            "WANDB_CACHE_DIR": str(folder / "cache"),
        }
        import wandb

        id_file = folder / "run-id.txt"
        if first_step == 1 or not id_file.exists():
            id_file.write_text(uuid4().hex[:8], encoding="utf-8")
        self._run = wandb.init(
            project="looplm",
            name=run_name,
            id=id_file.read_text(encoding="utf-8"),
            config=config,
            dir=folder,
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values of a step."""
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        """Write and close."""
        self._run.finish()


CHOICE = Wandb
