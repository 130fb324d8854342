"""`looplm trace`: what a model was thinking."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from looplm.cli.console import find_device, notes, output
from looplm.cli.halting import HaltingOptions


@contextmanager
def naming_others(asked: str | None) -> Iterator[None]:
    """Where no model was asked for, a refusal of the text says which one read it, and which others there are."""
    from looplm.errors import InputError
    from looplm.runs.checkpoint import shipped_names

    try:
        yield
    except InputError as error:
        if asked:
            raise
        first, *others = shipped_names()
        raise InputError(f"{error} The model is {first}; `--model` takes another: {', '.join(others)}, or a run.") from None


@dataclass(frozen=True)
class Trace:
    """Show what a model was thinking: the guess and confidence of every token after every loop."""

    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """A question of the model's task, such as 978+457, short enough for a screen."""
    model: str | None = None
    """A run, a checkpoint, or the name of a shipped model; default: the first shipped one."""
    stop: Annotated[HaltingOptions, tyro.conf.arg(name="")] = field(default_factory=HaltingOptions)
    figure: Path | None = None
    """Also draw it to this file, as .svg and .png."""
    json: bool = False
    """Print it as JSON, in the layout of spec/trace.schema.json."""

    def run(self) -> int:
        """Print the trace, in colour on a terminal."""
        from looplm.cli.tables import print_trace
        from looplm.evaluate.figures import save_figure, trace_figure
        from looplm.files import refuse_no_figure
        from looplm.runs.checkpoint import load, shipped_names
        from looplm.think.trace import trace_text

        if self.figure:
            refuse_no_figure(self.figure)
        trained = load(self.model or shipped_names()[0], find_device("cpu"))
        halting = self.stop.resolve(trained.recipe.halting)
        follows = self.stop.max_loops is None
        with naming_others(self.model):
            trace = trace_text(trained.model, trained.recipe.task, self.text, halting, bound_follows_slots=follows).as_json()
        if self.json:
            print(json.dumps(trace))
        else:
            print_trace(output(), trace)
        if self.figure:
            notes().print("wrote " + " and ".join(map(str, save_figure(trace_figure(trace), self.figure))))
        return 0
