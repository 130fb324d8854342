"""`looplm bench`: how fast it is here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from looplm.cli.console import notes, output


@dataclass(frozen=True)
class Bench:
    """Measure speed on this machine.

    kernels: fused against eager, compiled and CUDA-graph torch, on a GPU, some minutes. hardware: memory and times of
    training and generation beside what the planner predicts, on this CPU, two minutes.
    """

    what: Annotated[Literal["kernels", "hardware"], tyro.conf.Positional]
    """What to measure."""
    out: Path | None = None
    """Also write the rows to this JSON file."""
    widths: tuple[int, ...] = (128, 256)
    """Widths of the models."""
    batches: tuple[int, ...] = (1, 16, 128, 2048)
    """Texts that are decoded together."""
    rounds: int = 20
    """Rounds in which the contenders take turns."""

    def run(self) -> int:
        """Print a row for each setting as it is measured."""
        from looplm.bench.kernels import report
        from looplm.files import to_json, write_file

        if self.what == "hardware":
            return self._hardware()
        rows: list[dict[str, Any]] = []
        for row in report(self.widths, self.batches, self.rounds):
            rows.append(row)
            output().print(_device(row) if len(rows) == 1 else _line(row))
        if self.out:
            write_file(self.out, to_json({"machine": rows[0], "rows": rows[1:]}))
            notes().print(f"wrote {self.out}")
        return 0

    def _hardware(self) -> int:
        from looplm.bench.hardware import measure
        from looplm.files import to_json, write_file

        written = measure()
        for line in [*written["memory"], written["process"]]:
            output().print(
                f"{line['size']}: predicted / measured memory {line['predicted_bytes'] / line['measured_bytes']:.3f}"
            )
        if self.out:
            write_file(self.out, to_json(written))
            notes().print(f"wrote {self.out}")
        return 0


def _device(machine: dict[str, Any]) -> str:
    return f"{machine['device']}, torch {machine['torch']}, Triton {machine['triton']}, {machine['rounds']} rounds"


def _line(row: dict[str, Any]) -> str:
    times = "  ".join(f"{name} {value:.2f}" for name, value in row["microseconds_per_token"].items())
    claims = "  ".join(
        f"{name} {value['median']:.2f} [{value['low']:.2f}, {value['high']:.2f}]{'' if value['decided'] else ' undecided'}"
        for name, value in row["ratios"].items()
    )
    what = f"adder, {row['sums']} sums" if "adder" in row else f"d={row['width']} batch={row['batch']}"
    return f"{what} loops={row['mean_loops']:.1f}  µs per token: {times}\n    ratios: {claims}"
