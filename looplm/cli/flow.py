"""`looplm flow`: every tensor that a model makes of one text."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from looplm.cli.console import find_device, notes, output
from looplm.cli.trace import naming_others


@dataclass(frozen=True)
class FlowCommand:
    """Show how one text flows through a model: each module call, its shapes and bytes; or every tensor."""

    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """What the model is asked, such as 12+34, or "I love you" with `--model translator`."""
    model: str | None = None
    """A run, a checkpoint, or the name of a shipped model; default: the first shipped one."""
    depth: int = 1
    """How deep module calls are told apart, from 1 to 9: 1 shows layers, 2 what is in them."""
    all: bool = False
    """Show every tensor with the operation that made it."""
    figure: Path | None = None
    """Also draw the calls to this file, as .svg and .png."""
    json: bool = False
    """Print every tensor as JSON instead."""

    def run(self) -> int:
        """Print the flow."""
        from looplm.errors import InputError
        from looplm.evaluate.figures import save_figure
        from looplm.evaluate.flow_figure import flow_figure
        from looplm.files import refuse_no_figure
        from looplm.runs.checkpoint import load, shipped_names
        from looplm.think.flow import flow_of_text

        if not 1 <= self.depth <= 9:
            raise InputError(f"`--depth` must be from 1 to 9: got {self.depth}.")
        if self.figure:
            refuse_no_figure(self.figure)
        trained = load(self.model or shipped_names()[0], find_device("cpu"))
        with naming_others(self.model):
            flow = flow_of_text(trained.model, trained.recipe.task, self.text, trained.recipe.halting)
        if self.json:
            print(json.dumps(flow.as_json(), ensure_ascii=False))
        else:
            from looplm.cli.tables import print_flow

            print_flow(output(), flow, self.depth, every=self.all)
        if self.figure:
            figure = flow_figure(flow.steps(self.depth), len(flow.tokens))
            notes().print("wrote " + " and ".join(map(str, save_figure(figure, self.figure))))
        return 0
