"""`looplm train`."""

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import tyro

from looplm.cli.console import notes, output
from looplm.cli.device import DeviceOptions

if TYPE_CHECKING:
    import torch

    from looplm.config import Preset
    from looplm.train.execution import Execution
    from looplm.train.trainer import Step

_NOTE_EVERY = 250


@dataclass(frozen=True)
class Train:
    """Train a preset, test it, and write a run: its model, log, numbers and figures."""

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """A file in spec/presets, such as first-light."""
    out: Path | None = None
    """Folder of the run; it must not exist. Default: runs/PRESET/TIME."""
    seed: int = 0
    """Fixes weights, problems and loop counts."""
    steps: int | None = None
    """Training steps, in place of the preset's."""
    recompute: bool = False
    """With a profile: compute each layer again in the backward pass, in place of keeping what it needs."""
    on: Annotated[DeviceOptions, tyro.conf.arg(name="")] = field(default_factory=DeviceOptions)

    def run(self) -> int:
        """Train, test, print the table and the trace."""
        from looplm.cli.tables import print_comparison, print_trace
        from looplm.config import load_preset
        from looplm.think.trace import read_trace
        from looplm.runs.results import control_results
        from looplm.runs.run import default_folder, run_preset

        preset = load_preset(self.preset, steps=self.steps)
        device, execution = self._execution(preset)
        folder = self.out or default_folder(preset.name)
        with _Display(f"training {preset.name}", preset.training.steps) as display:
            result = run_preset(preset, self.seed, folder, device, display.on_step, display.on_message, execution)
        console = output()
        print_comparison(console, [result], control_results(preset.name))
        print_trace(console, read_trace(folder / "trace.json"))
        console.print(f"\nThe run is in {folder}: report.md, summary.json, figures, the model.")
        console.print(f'Try it: looplm solve "978+457" --model {folder}')
        return 0

    def _execution(self, preset: "Preset") -> "tuple[torch.device, Execution | None]":
        """The device, and how the profile wants the training computed; refuses what does not fit."""
        from looplm.errors import InputError
        from looplm.train.execution import plan_execution
        from looplm.hardware.workload import workload_of

        profile, execution = self.on.find_profile(), None
        if profile:
            execution = plan_execution(workload_of(preset), profile, recompute=self.recompute, force=self.on.force)
            notes().print(f"as {profile.name} wants it: {execution.summary()}")
        elif self.recompute:
            raise InputError("`--recompute` goes with `--profile`; give one, such as --profile auto.")
        return self.on.take(profile), execution


class _Display:
    """A progress bar on a terminal; elsewhere a line now and then."""

    def __init__(self, title: str, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.steps = steps
        self.console = notes()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self.bar = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal
        )
        self.task = self.bar.add_task(title, total=steps, note="")
        self.title = title

    def __enter__(self) -> "_Display":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    def on_step(self, step: "Step") -> None:
        """Show the newest loss and speed."""
        note = f"loss {step.loss:.4f}, {step.tokens / step.elapsed_s:,.0f} tokens/s"
        self.bar.update(self.task, completed=step.step, note=note)
        if self.bar.disable and (step.step % _NOTE_EVERY == 0 or step.step == self.steps):
            self.console.print(f"{self.title}: step {step.step} of {self.steps}, {note}")

    def on_message(self, message: str) -> None:
        """Show what is being done after training."""
        self.bar.update(self.task, description=message, note="")
