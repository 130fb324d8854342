"""`looplm plan`: what a run costs, before it is paid for."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from looplm.cli.console import FAILED, fail, notes, output

if TYPE_CHECKING:
    from looplm.hardware.plan import Plan
    from looplm.hardware.workload import Workload


@dataclass(frozen=True)
class PlanCommand:
    """Say what a size or preset costs on a device: parameters, memory, time; the exit code is 1 if training does not fit."""

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """A size (spec/presets/sizes), an experiment (spec/presets), or a .toml file."""
    profile: str = "auto"
    """A device (spec/profiles), a .toml file, or auto: this machine."""
    rows: int | None = None
    """Rows of a part of a training batch; default: what fits, at most what the profile recommends."""
    batch: int | None = None
    """Rows of a training step, in place of the preset's."""
    context: int | None = None
    """Tokens of a row, in place of the preset's."""
    loops: int | None = None
    """Loops, in place of the preset's."""
    tokens: int | None = None
    """Tokens of the whole training, in place of the preset's."""
    recompute: bool = False
    """Compute each layer again in the backward pass, in place of keeping what it needs."""
    utilization: float = 1.0
    """Share of the roofline that days and energy count with; real runs reach a third to a half."""
    figure: Path | None = None
    """Also draw decoding speed against loops, on every shipped device, to this file, as .svg and .png."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Print the plan, a line a number."""
        from looplm.errors import InputError
        from looplm.files import refuse_no_figure
        from looplm.hardware.detect import find_profile
        from looplm.hardware.plan import make_plan, with_loops
        from looplm.train.workloads import find_workload

        for name in ("rows", "batch", "context", "loops", "tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"`--{name}` must be at least 1: got {value}.")
        if not 0 < self.utilization <= 1:
            raise InputError(f"`--utilization` must be above 0 and at most 1: got {self.utilization}.")
        if self.figure:
            refuse_no_figure(self.figure)
        workload, profile = find_workload(self.preset), find_profile(self.profile)
        given = {"batch_size": self.batch, "context_tokens": self.context, "train_tokens": self.tokens}
        if self.loops:
            if workload.model.body == "static":
                raise InputError(f"{workload.name} is a static model, which has one loop; leave `--loops` out.")
            workload = with_loops(workload, self.loops)
        workload = replace(workload, **{key: value for key, value in given.items() if value})  # type: ignore[arg-type]
        plan = make_plan(workload, profile, rows=self.rows, recompute=self.recompute, utilization=self.utilization)
        if self.json:
            print(json.dumps(plan.as_json()))
        else:
            _print(plan)
        if self.figure:
            _draw(workload, self.figure)
        if not plan.fits:
            fail(plan.refusal)
        return 0 if plan.fits else FAILED


def _draw(workload: "Workload", path: Path) -> None:
    from looplm.evaluate.figures import save_figure
    from looplm.hardware.figure import loops_figure
    from looplm.hardware.profile import shipped_devices

    notes().print("wrote " + " and ".join(map(str, save_figure(loops_figure(workload, shipped_devices()), path))))


def _print(plan: "Plan") -> None:
    from looplm.hardware.units import human

    console, setting, section = output(), plan.setting, ""
    console.print(f"{plan.workload.title} on {plan.profile.title}", style="bold")
    for line in plan.lines:
        if line.section != section:
            section = line.section
            console.print(f"\n{section}", style="bold")
        note = f"; {line.note}" if line.note else ""
        console.print(f"  {line.what:<50} {human(line.value, line.unit):>18}  [dim]{line.clause}{note}[/]")
    parts = f"{setting.parts} parts" if setting.parts > 1 else "one part"
    console.print(f"\nA step of {plan.workload.batch_size} rows: {setting.rows} at a time, {parts}, {setting.dtype} products.")
    notes().print("Times are the roofline's: no run is faster. `looplm spec show CLAUSE` prints a formula.")
