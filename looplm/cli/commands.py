"""The commands by name: those of every task, and those that a task brings in the file `verbs.py` of its folder, as `VERBS`."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from looplm.cli.bench import Bench
from looplm.cli.conform import Conform
from looplm.cli.convert import Convert
from looplm.cli.doctor import Doctor
from looplm.cli.evaluate import Eval, Report
from looplm.cli.flow import FlowCommand
from looplm.cli.measure import Measure
from looplm.cli.plan import PlanCommand
from looplm.cli.profile import ProfileCommand
from looplm.cli.runs import Runs
from looplm.cli.ship import Ship
from looplm.cli.spec import Spec
from looplm.cli.study import StudyCommand
from looplm.cli.trace import Trace
from looplm.cli.train import Train

COMMANDS: dict[str, Any] = {
    "train": Train,
    "runs": Runs,
    "eval": Eval,
    "trace": Trace,
    "flow": FlowCommand,
    "report": Report,
    "study": StudyCommand,
    "ship": Ship,
    "plan": PlanCommand,
    "profile": ProfileCommand,
    "spec": Spec,
    "conform": Conform,
    "convert": Convert,
    "bench": Bench,
    "measure": Measure,
    "doctor": Doctor,
}
"""Those that serve every task."""


def all_commands() -> dict[str, Any]:
    """All commands by name: those of every task, then those that a task brings."""
    found = dict(COMMANDS)
    for path in sorted((Path(__file__).parents[1] / "tasks").glob("*/verbs.py")):
        # as a file, since importing the task's folder would import torch
        spec = spec_from_file_location(f"looplm.tasks.{path.parent.name}.verbs", path)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        sys.modules.setdefault(spec.name, module)
        spec.loader.exec_module(module)
        found |= module.VERBS
    return found
