"""`looplm solve` and `looplm trace`: what a trained adder says, and what it was thinking."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from looplm.cli.console import FAILED, fail, find_device, notes, output
from looplm.cli.device import DeviceOptions
from looplm.cli.halting import HaltingOptions

if TYPE_CHECKING:
    import torch

    from looplm.loop.halting import ByRole
    from looplm.tasks.addition.solve import Solution
    from looplm.models.looped import LoopLM

Mode = Literal["left-to-right", "parallel"]

_LINES_AT_A_TIME = 512


@dataclass(frozen=True)
class Solve:
    """Add with a trained model: one sum, or one a line from a file or from standard input."""

    problem: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROBLEM")]
    """A sum such as 978+457, a file with one a line, or - for standard input; up to 1,000 digits each."""
    mode: Mode | None = None
    """How the answer is given; default: as the model was trained, and for the shipped models left to right."""
    model: str | None = None
    """A run, a checkpoint, or the name of a shipped model; default: the shipped adder of the mode."""
    stop: Annotated[HaltingOptions, tyro.conf.arg(name="")] = field(default_factory=HaltingOptions)
    json: bool = False
    """Print one JSON object a line: problem, answer, loops taken per answer token, block evaluations."""
    check: bool = False
    """Count right answers against exact arithmetic; exit with 1 if any is wrong."""
    on: Annotated[DeviceOptions, tyro.conf.arg(name="")] = field(default_factory=DeviceOptions)
    backend: Literal["auto", "torch", "triton", "reference"] = "auto"
    """What runs the loop: auto takes the fused kernels where they can run, torch elsewhere."""

    def run(self) -> int:
        """Solve in batches; a bad line of a file is reported and passed over."""
        from looplm.think.backends import choose
        from looplm.tasks.addition.problems import parse_problem
        from looplm.errors import InputError
        from looplm.tasks.addition.solve import solve
        from looplm.train.execution import refuse_generation, with_products

        lines, whole_file = self._lines()
        if not whole_file:
            parse_problem(self.problem)  # refuse before a model is loaded
        profile = self.on.find_profile()
        device = self.on.take(profile)
        model, halting = _load(self.model, self.mode, self.stop, device)
        if profile:
            model = with_products(model, profile)
        chosen = choose(self.backend, model, halting)
        if device.type == "cuda" and chosen.name == "torch" and self.backend == "auto":
            notes().print(f"the loop runs in torch: {chosen.why}")
        solved = bad = right = 0
        while batch := list(islice(lines, profile.use.batch_size if profile else _LINES_AT_A_TIME)):
            problems = []
            for number, line in batch:
                try:
                    parse_problem(line)
                    problems.append(line)
                except InputError as error:
                    bad += 1
                    fail(f"{self.problem}, line {number}: {error}")
            if profile and problems and not self.on.force:
                longest = 2 * max(map(len, problems)) + 2
                refuse_generation(model, len(problems), longest, halting.max_loops, profile)
            for solution in solve(model, problems, halting, self.backend) if problems else []:
                solved, right = solved + 1, right + solution.correct
                text = json.dumps(_as_json(solution)) if self.json else f"{solution.problem}={solution.answer}"
                print(text, flush=not whole_file)
        if whole_file and not solved and not bad:
            raise InputError(f"{self.problem} holds no sums; give one a line, such as 978+457.")
        if self.check:
            notes().print(f"{right} of {solved} right")
        if bad:
            fail(f"{bad} of {solved + bad} lines were no sums and were passed over.")
        return FAILED if bad or (self.check and right < solved) else 0

    def _lines(self) -> tuple[Iterator[tuple[int, str]], bool]:
        """Numbered problems, and whether they come from a file or standard input; blank lines are no problems."""
        from looplm.errors import InputError

        if self.problem == "-":
            return _numbered(iter(sys.stdin)), True
        if "+" in self.problem:
            return iter([(1, self.problem)]), False
        try:
            text = Path(self.problem).read_text(encoding="utf-8")
        except OSError:
            raise InputError(f"{self.problem[:60]!r} is neither a sum such as 978+457 nor a file that can be read.") from None
        except UnicodeDecodeError:
            raise InputError(f"{self.problem} is not a text file; give one sum a line, such as 978+457.") from None
        return _numbered(iter(text.splitlines())), True


@dataclass(frozen=True)
class Trace:
    """Show what a model was thinking: the guess and confidence of every token after every loop."""

    problem: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROBLEM")]
    """A sum such as 978+457, of at most 24 digits in all."""
    mode: Mode | None = None
    """How the answer is given; default: as the model was trained, and for the shipped models left to right."""
    model: str | None = None
    """A run, a checkpoint, or the name of a shipped model; default: the shipped adder of the mode."""
    stop: Annotated[HaltingOptions, tyro.conf.arg(name="")] = field(default_factory=HaltingOptions)
    figure: Path | None = None
    """Also draw it to this file, as .svg and .png."""
    json: bool = False
    """Print it as JSON, in the layout of spec/trace.schema.json."""

    def run(self) -> int:
        """Print the trace, in colour on a terminal."""
        from looplm.cli.tables import print_trace
        from looplm.tasks.addition.problems import parse_problem
        from looplm.evaluate.figures import save_figure, trace_figure
        from looplm.think.trace import trace_sum

        parse_problem(self.problem)  # refuse before a model is loaded
        model, halting = _load(self.model, self.mode, self.stop, find_device("cpu"))
        trace = trace_sum(model, self.problem, halting).as_json()
        if self.json:
            print(json.dumps(trace))
        else:
            print_trace(output(), trace)
        if self.figure:
            notes().print("wrote " + " and ".join(map(str, save_figure(trace_figure(trace), self.figure))))
        return 0


def _load(name: str | None, mode: Mode | None, stop: HaltingOptions, device: "torch.device") -> "tuple[LoopLM, ByRole]":
    """The model that was asked for, or the shipped one of the mode, and when its tokens stop."""
    from looplm.runs.checkpoint import load
    from looplm.errors import InputError

    model = load(name or {"parallel": "parallel-adder"}.get(mode or "", "adder"), device)
    assert model.preset is not None
    trained = model.preset.data.mode
    if mode and mode != trained:
        raise InputError(
            f"`--mode` is {mode}, but {name} was trained to answer {trained}; leave --mode out, or give a model of that mode."
        )
    return model, stop.resolve(model.preset.halting)


def _as_json(solution: "Solution") -> dict[str, object]:
    return {
        "problem": solution.problem,
        "answer": solution.answer,
        "loops_taken": solution.loops_taken,
        "block_evaluations": round(solution.block_evaluations, 3),
    }


def _numbered(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    return ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())
