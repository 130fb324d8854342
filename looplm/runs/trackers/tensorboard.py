"""TensorBoard: event files, which PyTorch writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from looplm.runs.trackers import Tracker


class TensorBoard(Tracker):
    """Values are scalars in float32, the config is a text. A continued run hides what was kept of its later steps."""

    package = "tensorboard"
    view = "tensorboard --logdir {folder}"

    def __init__(self, run_name: str, config: dict[str, Any], folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder, purge_step=first_step, flush_secs=10)
        if first_step == 1:
            table = json.dumps(config, indent=2, ensure_ascii=False)
            self._writer.add_text(run_name, f"```json\n{table}\n```", 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values of a step."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def finish(self) -> None:
        """Write and close."""
        self._writer.close()


CHOICE = TensorBoard
