"""`looplm train`."""

import os
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from looplm.cli.console import command, notes, output
from looplm.cli.device import DeviceOptions

if TYPE_CHECKING:
    import torch

    from looplm.train.execution import Execution
    from looplm.train.recipe import Recipe
    from looplm.train.trainer import Step

_NOTE_EVERY = 250


@dataclass(frozen=True)
class Train:
    """Train a recipe, test it, and write a run: its model, log, numbers and figures."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """A file in spec/presets, such as first-light, or your own .toml file."""
    out: Path | None = None
    """Folder of the run; it must not exist, unless it is resumed. Default: runs/RECIPE/TIME."""
    resume: bool = False
    """Go on with a run that was stopped; without --out, with the newest one of this recipe and seed."""
    seed: int = 0
    """Fixes weights, problems and loop counts."""
    steps: int | None = None
    """Training steps, in place of the recipe's."""
    data: Path | None = None
    """What the task reads, in place of the recipe's `task.path`."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Another setting, such as --set training.batch_size=64; may be given more than once."""
    checkpoint_every: int = 0
    """Steps between two checkpoints, beside one every three minutes."""
    track: tuple[str, ...] = ()
    """Also log to trackers: trackio, wandb, tensorboard."""
    recompute: bool = False
    """Compute each layer again in the backward pass, in place of keeping what it needs."""
    recompute_loops: bool = False
    """The same for each whole loop."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the products of matrices; default: the profile's, else float32."""
    compile: bool = False
    """Compile the block."""
    workers: int = 0
    """Processes that draw the coming batches."""
    on: Annotated[DeviceOptions, tyro.conf.arg(name="")] = field(default_factory=DeviceOptions)

    def run(self) -> int:
        """Train, test, print the table and the trace."""
        from looplm.cli.tables import print_comparison, print_trace
        from looplm.errors import InputError
        from looplm.runs.folder import default_folder
        from looplm.runs.results import control_results
        from looplm.runs.run import Broken, Keeping, run_recipe
        from looplm.runs.signals import Stopped
        from looplm.settings import changes_of, merge
        from looplm.think.trace import read_trace
        from looplm.train.recipe import load_recipe

        changes = changes_of(self.set)
        if self.steps is not None:
            changes = merge(changes, {"training": {"steps": self.steps}})
        if self.data is not None:
            changes = merge(changes, {"task": {"path": str(self.data.resolve())}})
        recipe = load_recipe(self.recipe, changes)
        device, execution = self._execution(recipe)
        folder = self.out or (self._newest(recipe.name) if self.resume else default_folder(recipe.name))
        again = f"To go on: {command(*([] if self.out else ['--out', str(folder)]), '--resume', without='--resume')}"
        with _Display(f"training {recipe.name}", recipe.training.steps) as display:
            keeping = Keeping(
                checkpoint_every=self.checkpoint_every,
                trackers=self.track,
                on_step=display.on_step,
                on_message=display.on_message,
                on_remark=display.on_remark,
                on_signal=display.on_signal,
            )
            try:
                result = run_recipe(recipe, self.seed, folder, device, execution=execution, keeping=keeping, resume=self.resume)
            except Stopped as stopped:
                raise Stopped(stopped.signum, f"{stopped} {again}") from None
            except Broken as broken:
                raise InputError(f"{broken} {again}") from broken
            except Exception as error:
                if not isinstance(error, InputError):
                    error.add_note(again)
                raise
        console = output()
        print_comparison(console, [result], control_results(recipe.name))
        print_trace(console, read_trace(folder / "trace.json"))
        console.print(f"\nThe run is in {folder}: report.md, summary.json, figures, the model.")
        console.print(
            f"Try it: looplm trace {shlex.quote(recipe.task.example)} --model {shlex.quote(str(folder))}", markup=False
        )
        return 0

    def _execution(self, recipe: "Recipe") -> "tuple[torch.device, Execution]":
        """The device, and how the profile or the options want the training computed; refuses what does not fit."""
        from looplm.errors import InputError
        from looplm.train.execution import Execution, plan_execution
        from looplm.train.workloads import workload_of

        if self.checkpoint_every < 0:
            raise InputError(f"`--checkpoint-every` must be at least 0: got {self.checkpoint_every}.")
        most = max(8, os.cpu_count() or 1)
        if not 0 <= self.workers <= most:
            raise InputError(f"`--workers` must be from 0 to {most} here: got {self.workers}.")
        profile, execution = self.on.find_profile(), Execution()
        if profile:
            execution = plan_execution(workload_of(recipe), profile, recompute=self.recompute, force=self.on.force)
        execution = replace(
            execution,
            dtype=self.precision or execution.dtype,
            recompute=self.recompute,
            recompute_loops=self.recompute_loops,
            compile=self.compile or execution.compile,
            workers=self.workers,
        )
        if profile:
            notes().print(f"as {profile.name} wants it: {execution.summary()}")
        return self.on.take(profile), execution

    def _newest(self, recipe: str) -> Path:
        """The newest run of this recipe and seed that is not complete, and that no process works in."""
        from looplm.errors import InputError
        from looplm.runs.lock import is_worked_in
        from looplm.runs.record import read_note

        for note in sorted((Path("runs") / recipe).glob("*/run.json"), reverse=True):
            try:
                said = read_note(note.parent)
            except InputError:
                continue  # damaged, or of another version: `looplm runs` says which
            if said["seed"] == self.seed and "complete" not in said["done"] and not is_worked_in(note.parent):
                return note.parent
        raise InputError(
            f"there is no unfinished run of {recipe} with seed {self.seed} in runs/{recipe}; `looplm runs` lists what is "
            "there, and --out takes any folder."
        )


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

    def on_remark(self, remark: str) -> None:
        """Show what stays on the screen."""
        self.console.print(f"{self.title}: {remark}")

    def on_signal(self) -> None:
        """Say that the signal was heard; written past the console, which may be in the middle of a line."""
        os.write(2, b"\nlooplm: stopping as soon as what is being done is whole; once more, and it stops at once.\n")
