"""`looplm bench`: how fast it is here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from looplm.cli.console import notes, output


@dataclass(frozen=True)
class Bench:
    """Measure speed on this machine.

    kernels: fused against eager, compiled and CUDA-graph torch, on a GPU, some minutes. hardware: memory and times of
    training and generation beside what the planner predicts, on this CPU, two minutes. generation: what halting saves,
    beside GPT-2 of transformers; training: steps beside those of a plain GPT; each on one core of this CPU, some minutes.
    """

    what: Annotated[Literal["kernels", "hardware", "generation", "training"], tyro.conf.Positional]
    """What to measure."""
    out: Path | None = None
    """Also write the rows to this JSON file."""
    widths: tuple[int, ...] = (128, 256)
    """Widths of the models."""
    batches: tuple[int, ...] = ()
    """Texts that are decoded together; default: 1, 16, 128 and 2048 for kernels, 1, 8 and 32 for generation."""
    rounds: int = 20
    """Rounds in which the contenders take turns."""

    def run(self) -> int:
        """Print a row for each setting as it is measured."""
        from looplm.files import refuse_unwritable, to_json, write_file

        if self.out:
            refuse_unwritable(self.out)
        if self.what == "hardware":
            return self._hardware()
        rows: list[dict[str, Any]] = []
        for row in self._report():
            rows.append(row)
            output().print(_device(row) if len(rows) == 1 else _line(row))
        if self.out:
            write_file(self.out, to_json({"machine": rows[0], "rows": rows[1:]}))
            notes().print(f"wrote {self.out}")
        return 0

    def _report(self) -> Iterator[dict[str, Any]]:
        import torch

        from looplm.bench import generation, kernels, training

        if self.what == "kernels":
            return kernels.report(self.widths, self.batches or (1, 16, 128, 2048), self.rounds)
        torch.set_num_threads(1)
        if self.what == "generation":
            return generation.report(self.batches or (1, 8, 32), self.rounds)
        return training.report(self.rounds)

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
    versions = [f"{name} {machine[name]}" for name in ("torch", "triton", "transformers") if name in machine]
    return ", ".join([machine["device"], *versions, f"{machine['rounds']} rounds"])


def _line(row: dict[str, Any]) -> str:
    if "microseconds_per_token" in row:
        times = "µs per token: " + "  ".join(f"{name} {value:.2f}" for name, value in row["microseconds_per_token"].items())
    else:
        times = "ms: " + "  ".join(f"{name} {1e3 * value['median']:.2f}" for name, value in row["seconds"].items())
    claims = "  ".join(
        f"{name} {value['median']:.2f} [{value['low']:.2f}, {value['high']:.2f}]{'' if value['decided'] else ' undecided'}"
        for name, value in row["ratios"].items()
    )
    what = f"adder, {row['sums']} sums" if "adder" in row else f"d={row['width']} batch={row['batch']}"
    what = f"{row['what']}{' compiled' * row.get('compiled', False)} {what}" if "what" in row else what
    loops = f" loops={row['mean_loops']:.1f}" if "mean_loops" in row else ""
    return f"{what}{loops}  {times}\n    ratios: {claims}"
