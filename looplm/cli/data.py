"""`looplm data`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from looplm.cli.console import notes


@dataclass(frozen=True)
class Data:
    """Write a dataset to train or test with elsewhere: parquet files that `datasets` loads."""

    task: Annotated[Literal["addition"], tyro.conf.Positional]
    """Which task."""
    out: Path
    """Folder of the dataset; it must not exist."""
    count: int = 250_000
    """Distinct training problems."""
    format: Literal["plain", "reversed", "double-reversed", "equals-first"] = "double-reversed"
    """How texts are written; see spec/addition.md."""
    min_digits: int = 1
    """Fewest digits of a training operand."""
    max_digits: int = 4
    """Most digits of a training operand."""
    test_digits: tuple[int, ...] = (4, 5, 6, 8, 10, 12)
    """Digits of the operands of the test sets."""
    test_count: int = 200
    """Problems per test set and digit count."""
    seed: int = 0
    """Fixes every problem."""

    def run(self) -> int:
        """Draw, and write train.parquet and test.parquet."""
        from looplm.config import DataConfig, parse
        from looplm.tasks.addition.export import export

        settings = {"format": self.format, "min_digits": self.min_digits, "max_digits": self.max_digits}
        config = parse(DataConfig, settings, where="this dataset")
        sizes = export(self.out, config, self.count, self.test_digits, self.test_count, self.seed)
        notes().print(f"wrote {self.out}: " + ", ".join(f"{name} with {size:,} problems" for name, size in sizes.items()))
        return 0
