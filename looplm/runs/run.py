"""One run: train a recipe, test it, and leave a folder that explains itself.

config.toml   the resolved recipe          log.jsonl     one line a step, after a header
metrics.csv   the same numbers as a table  summary.json  every number that may be quoted
trace.json    one answer, loop by loop     *.svg, *.png  accuracy and trace
report.md     rendered from the summary    checkpoint/   the model: looplm.load(folder)
"""

import csv
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from looplm.draws import Draw, seeded
from looplm.errors import InputError
from looplm.evaluate.scores import Cell, evaluate
from looplm.files import to_json, write_file
from looplm.models import build_model
from looplm.models.body import Body
from looplm.runs.checkpoint import Trained, load, save
from looplm.runs.folder import RunFolder
from looplm.runs.provenance import provenance
from looplm.runs.report import report_text
from looplm.runs.results import Result, figure_lines, make_result, make_summary, others_by_size, read_summary
from looplm.runs.signals import Stopped, Wish, heeding
from looplm.runs.trackers import find_tracker, open_tracker
from looplm.settings import as_table
from looplm.train.execution import Execution
from looplm.train.fits import TEST_SEED
from looplm.train.gate import train_gate
from looplm.train.recipe import Recipe
from looplm.train.trainer import Step, Trainer, run_steps

_LAST_STEPS = 100
_SECONDS_BETWEEN_CHECKPOINTS = 180.0


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What a run keeps while it trains, and who is told."""

    checkpoint_every: int = 0
    """Steps between two checkpoints; 0: only every three minutes."""
    trackers: tuple[str, ...] = ()
    """Names of looplm.runs.trackers."""
    on_step: Callable[[Step], None] = lambda step: None
    on_message: Callable[[str], None] = lambda message: None
    """Told what is being done."""
    on_remark: Callable[[str], None] = lambda remark: None
    """Told what must not be overlooked."""
    on_signal: Callable[[], None] = lambda: None
    """Told, at any moment of the program, that the run will stop at the next place where it is whole."""


class Broken(InputError):
    """A run that ended early because something failed; what it has done is kept, and it can go on."""


def run_recipe(
    recipe: Recipe,
    seed: int,
    folder: Path,
    device: torch.device,
    *,
    execution: Execution | None = None,
    keeping: Keeping | None = None,
    model_of: Path | None = None,
    resume: bool = False,
) -> Result:
    """Train and test a recipe, stage by stage; a run that was stopped, however it was, goes on with `resume`.

    Args:
        recipe: what to train.
        seed: of weights and problems; the test sets have a seed of their own.
        folder: the run's; it must not exist, unless it is resumed.
        device: where to train.
        execution: how training is computed; by default the plainest way.
        keeping: how often what is kept, and who is told.
        model_of: a run of the same training without a gate, whose model this recipe's gate is trained for.
        resume: go on with the run in the folder.

    Raises:
        InputError: if the folder is taken, or is another run; or if training diverges.
        Broken: if something failed that can be mended, such as a full disk; what is done is kept.
        Stopped: if the run was told to stop; what is done is kept.

    Spec: [training.claimed][], [training.resume][], [training.log][].
    """
    execution, keeping = execution or Execution(), keeping or Keeping()
    for name in keeping.trackers:
        find_tracker(name)
    source = provenance(recipe, seed, device, execution)
    run = (RunFolder.resume if resume else RunFolder.claim)(folder, recipe, source)
    with run, heeding(keeping.on_signal) as wish:
        stages = _Stages(run, recipe, seed, device, execution, keeping, source, wish)
        try:
            stages.do("train", lambda: stages.train(model_of))
            stages.do("test", stages.test)
            stages.do("trace", stages.trace)
            stages.do("report", stages.report)
            stages.do("complete", run.forget_checkpoints)
        except FloatingPointError as error:
            raise InputError(
                f"training diverged: {error} What was done before is kept in {folder}; going on would come to the same. Try "
                "another seed, or a lower rate (`training.schedule`)."
            ) from None
        except Exception as error:
            kept = f"What was done before is kept in {folder}."
            if (what := _can_be_mended(error)) is None:
                error.add_note(kept)
                raise
            if wish.signum:  # it may have ended a worker before this process had come to a place where it is whole
                raise Stopped(wish.signum, f"stopped. {kept}") from error
            raise Broken(f"{what} {kept}") from error
    (result,) = read_summary(folder)["results"]
    return result


@dataclass(frozen=True)
class _Stages:
    run: RunFolder
    recipe: Recipe
    seed: int
    device: torch.device
    execution: Execution
    keeping: Keeping
    source: dict[str, Any]
    wish: Wish

    @property
    def path(self) -> Path:
        return self.run.path

    def do(self, name: str, make: Callable[[], None]) -> None:
        self._stop_if_wished("the stages that are done are kept")
        self.run.stage(name, make)

    def train(self, model_of: Path | None) -> None:
        """The weights, then their log as a table."""
        if model_of is None:
            model = self._trained()
        else:
            model = _with_fresh_gate(model_of, self.recipe, self.seed).to(self.device)
            steps_log = (model_of / "log.jsonl").read_bytes().partition(b"\n")[2]
            header = (self.path / "log.jsonl").read_bytes().partition(b"\n")[0]
            write_file(self.path / "log.jsonl", header + b"\n" + steps_log)
        steps = self.run.steps()
        facts: dict[str, Any] = {"training": _training_facts(steps)}
        if self.recipe.gate:
            facts["gate"] = self._train_gate(model)
        shutil.rmtree(self.path / "checkpoint", ignore_errors=True)  # of a save that was cut off
        save(Trained(model.eval(), self.recipe, self.run.source() | facts), self.path / "checkpoint")
        write_file(self.path / "metrics.csv", _csv(steps))

    def _trained(self) -> Body:
        trainer = Trainer(self.recipe, self.seed, self.device, self.execution)
        self.run.restore(trainer, self.keeping.on_remark)
        self.run.goes_on(trainer.steps_done, self.source)
        named: dict[str, Any] = {
            "run_name": f"{self.recipe.name}-{self.seed}",
            "config": as_table(self.recipe),
            "folder": self.path,
        }
        first, tell = trainer.steps_done + 1, self.keeping.on_message
        trackers = [open_tracker(name, **named, first_step=first, on_message=tell) for name in self.keeping.trackers]
        kept_at = time.monotonic()
        try:
            with self.run.log() as log:
                for step in run_steps(trainer):
                    log(step)
                    self.keeping.on_step(step)
                    for tracker in trackers:
                        tracker.log(step.step, _numbers(step))
                    every, last = self.keeping.checkpoint_every, step.step == trainer.config.steps
                    due = (every and step.step % every == 0) or time.monotonic() - kept_at > _SECONDS_BETWEEN_CHECKPOINTS
                    if due or last or self.wish:
                        self.run.keep(trainer)
                        kept_at = time.monotonic()
                    self._stop_if_wished(f"step {step.step} of {trainer.config.steps} is kept")
        finally:
            for tracker in trackers:
                tracker.finish()
        return trainer.model

    def _train_gate(self, model: Body) -> dict[str, Any]:
        """A gate's training is short: one that is stopped begins anew from the trained model."""
        self.keeping.on_message("training the gate")
        losses = []
        for loss in train_gate(model, self.recipe, self.seed):
            losses.append(loss)
            self._stop_if_wished("the trained model is kept, its gate is not")
        return {"steps": len(losses), "final_loss": round(fmean(losses[-_LAST_STEPS:]), 6)}

    def test(self) -> None:
        """Every test set, cell by cell; cells that an earlier session measured are taken as they are."""
        kept = self.path / "cells.jsonl"
        cells = _read_cells(kept)
        trained, tested, halting = load(self.path, self.device), self.recipe.evaluation, self.recipe.halting
        wanted = (trained.model, self.recipe.task, tested.sizes, tested.problems_per_cell, halting, TEST_SEED)
        done = {(cell.set, cell.size) for cell in cells}
        for cell in evaluate(*wanted, self.keeping.on_message, done):
            cells.append(cell)
            write_file(kept, "".join(json.dumps(asdict(c)) + "\n" for c in cells).encode())
            self._stop_if_wished("the test sets that were tested are kept")
        summary = make_summary([make_result(trained, cells, halting, TEST_SEED)])
        write_file(self.path / "summary.json", to_json(summary))
        kept.unlink(missing_ok=True)

    def trace(self) -> None:
        """One answer, loop by loop."""
        from looplm.think.trace import trace_text

        trained = load(self.path, self.device)
        trace = trace_text(trained.model, self.recipe.task, self.recipe.task.example, self.recipe.halting)
        write_file(self.path / "trace.json", to_json(trace.as_json()))

    def report(self) -> None:
        """Figures and report, from the files that are there."""
        from looplm.evaluate.figures import accuracy_figure, save_figure, trace_figure

        (result,) = read_summary(self.path)["results"]
        trace = json.loads((self.path / "trace.json").read_text(encoding="utf-8"))
        save_figure(trace_figure(trace), self.path / "trace.svg")
        figure = accuracy_figure(figure_lines([result]), tuple(result["trained_sizes"]), result["axis"], others_by_size(result))
        save_figure(figure, self.path / "accuracy.svg")
        write_file(self.path / "report.md", report_text(result).encode())

    def _stop_if_wished(self, kept: str) -> None:
        if self.wish:
            assert self.wish.signum is not None
            raise Stopped(self.wish.signum, f"stopped; {kept} in {self.path}.")


def _can_be_mended(error: Exception) -> str | None:
    """What failed, if it is not the program: a refusal, the disk, the memory, or a worker that something else ended."""
    lines = str(error).splitlines() or [""]
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}."
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"there is too little memory: {lines[0].rstrip('. ')}."
    if isinstance(error, RuntimeError) and lines[0].startswith("DataLoader worker"):
        return f"{lines[0].rstrip('. ')}."
    return None


def _read_cells(path: Path) -> list[Cell]:
    """Cells that an earlier session measured; none, if they cannot be read."""
    try:
        return [Cell(**json.loads(line)) for line in path.read_bytes().splitlines()]
    except (OSError, ValueError, TypeError):
        return []


def _with_fresh_gate(run: Path, recipe: Recipe, seed: int) -> Body:
    """The model of a run without a gate, with a fresh gate."""
    taken = load(run).model
    with seeded(Draw(seed, "weights")):
        model = build_model(recipe.model)
    model.load_state_dict({**model.state_dict(), **taken.state_dict()})
    return model.eval()


def _training_facts(steps: Sequence[Step]) -> dict[str, Any]:
    last = steps[-_LAST_STEPS:]
    return {
        "steps": len(steps),
        "final_loss": round(fmean(step.loss for step in last), 6),
        "final_loss_is": f"mean over the last {len(last)} steps, nats per scored token",
        "tokens": steps[-1].tokens,
        "elapsed_s": round(steps[-1].elapsed_s, 1),
        "tokens_per_s": round(steps[-1].tokens / steps[-1].elapsed_s),
    }


def _numbers(step: Step) -> dict[str, float]:
    return {name: float(value) for name, value in asdict(step).items() if name != "step" and value is not None}


def _csv(steps: Sequence[Step]) -> bytes:
    text = StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Step)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(step) for step in steps)
    return text.getvalue().encode()
