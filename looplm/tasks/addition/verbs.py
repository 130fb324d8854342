"""The commands that addition brings: solve, data and depth. Imported by the command line alone, so heavy imports wait."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from looplm.cli.console import FAILED, fail, notes
from looplm.cli.device import DeviceOptions
from looplm.cli.halting import HaltingOptions
from looplm.cli.lines import lines_of, standard_input, waiting

if TYPE_CHECKING:
    import torch

    from looplm.loop.halting import ByRole
    from looplm.runs.checkpoint import Trained
    from looplm.tasks.addition.solve import Solution

Mode = Literal["left-to-right", "parallel"]

_LINES_AT_A_TIME = 512
_FIRST_BYTES = 4096


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
    """Print one JSON object a line: problem, answer, loops taken per answer token, block evaluations, whether loops ran out."""
    check: bool = False
    """Count right answers against exact arithmetic; exit with 1 if any is wrong."""
    on: Annotated[DeviceOptions, tyro.conf.arg(name="")] = field(default_factory=DeviceOptions)
    backend: Literal["auto", "torch", "triton", "reference"] = "auto"
    """What runs the loop: auto takes the fused kernels where they can run, torch elsewhere."""

    def run(self) -> int:
        """Solve in batches; a bad line of a file is reported and passed over."""
        from looplm.errors import InputError
        from looplm.loop.halting import bound_for_slots
        from looplm.tasks.addition.problems import parse_problem
        from looplm.tasks.addition.solve import solve
        from looplm.think.backends import choose
        from looplm.train.execution import refuse_generation, with_products

        lines, whole_file = self._lines()
        if not whole_file:
            parse_problem(self.problem)  # refuse before a model is loaded
        profile = self.on.find_profile()
        device = self.on.take(profile)
        adder, halting = _load(self.model, self.mode, self.stop, device)
        if profile:
            adder = replace(adder, model=with_products(adder.model, profile))
        chosen = choose(self.backend, adder.model, halting)
        if device.type == "cuda" and chosen.name == "torch" and self.backend == "auto":
            notes().print(f"the loop runs in torch: {chosen.why}")
        follows = self.stop.max_loops is None
        solved = bad = right = out = most = 0
        for batch in waiting(lines, profile.use.batch_size if profile else _LINES_AT_A_TIME):
            problems = []
            for number, line in batch:
                try:
                    parse_problem(line)
                    problems.append(line)
                except InputError as error:
                    bad += 1
                    fail(f"{self.problem}, line {number}: {error}")
            if profile and problems and not self.on.force:
                asked = max((adder.recipe.task.prompt(problem) for problem in problems), key=lambda prompt: len(prompt.tokens))
                rules = bound_for_slots(halting, asked.slots) if follows else halting
                tokens = len(asked.tokens) + asked.max_new_tokens
                refuse_generation(adder.model, len(problems), tokens, rules.max_loops, profile)
            solutions = solve(adder, problems, halting, self.backend, bound_follows_slots=follows) if problems else []
            for solution in solutions:
                most = max(most, *solution.loops_taken) if solution.ran_out else most
                solved, right, out = solved + 1, right + solution.correct, out + solution.ran_out
                text = json.dumps(_as_json(solution)) if self.json else f"{solution.problem}={solution.answer}"
                print(text)
            sys.stdout.flush()
        if whole_file and not solved and not bad:
            raise InputError(f"{self.problem} holds no sums; give one a line, such as 978+457.")
        if self.check:
            notes().print(f"{right} of {solved} right")
        if out:
            fail(
                f"{out} of {solved} answers ran out of loops: a token was stopped before its rule was content, and may be"
                f" wrong; try --max-loops {2 * most}."
            )
        if bad:
            fail(f"{bad} of {solved + bad} lines were no sums and were passed over.")
        return FAILED if bad or (self.check and right < solved) else 0

    def _lines(self) -> tuple[Iterator[tuple[int, str]], bool]:
        """Numbered problems, and whether they come from a file or standard input; blank lines are no problems."""
        from looplm.errors import InputError

        if self.problem == "-":
            return _numbered(standard_input()), True
        if "+" in self.problem:
            return iter([(1, self.problem)]), False
        try:
            with Path(self.problem).open("rb") as file:
                start = file.read(_FIRST_BYTES)
        except OSError:
            raise InputError(f"{self.problem[:60]!r} is neither a sum such as 978+457 nor a file that can be read.") from None
        if b"\0" in start:
            raise InputError(f"{self.problem} is not a text file; give one sum a line, such as 978+457.")
        return _numbered(lines_of(Path(self.problem))), True


@dataclass(frozen=True)
class Data:
    """Write a dataset to train or test with elsewhere: parquet files that `datasets` loads."""

    task: Annotated[Literal["addition"], tyro.conf.Positional]
    """Which task."""
    out: Path
    """Folder of the dataset; it must not exist."""
    count: int = 250_000
    """Distinct training problems."""
    format: Literal["plain", "reversed", "double-reversed", "equals-first"] = "double-reversed"
    """How texts are written; see spec/addition.md."""
    min_digits: int = 1
    """Fewest digits of a training operand."""
    max_digits: int = 4
    """Most digits of a training operand."""
    test_digits: tuple[int, ...] = (4, 5, 6, 8, 10, 12)
    """Digits of the operands of the test sets."""
    test_count: int = 200
    """Problems per test set and digit count."""
    seed: int = 0
    """Fixes every problem."""

    def run(self) -> int:
        """Draw, and write train.parquet and test.parquet."""
        from looplm.settings import parse
        from looplm.tasks.addition import Addition
        from looplm.tasks.addition.export import export

        settings = {"format": self.format, "min_digits": self.min_digits, "max_digits": self.max_digits}
        task = parse(Addition, settings, where="this dataset")
        sizes = export(self.out, task, self.count, self.test_digits, self.test_count, self.seed)
        notes().print(f"wrote {self.out}: " + ", ".join(f"{name} with {size:,} problems" for name, size in sizes.items()))
        return 0


@dataclass(frozen=True)
class Depth:
    """Measure how deep parallel adders think, and what that saves; a few minutes each."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN [RUN ...]]")]
    """Runs or checkpoints; none: draw the numbers that --out holds."""
    out: Path
    """Where the numbers go; the file must not exist, unless no run is given."""
    figure: Path | None = None
    """Draw loops against the carry chain to this file, as .svg and .png."""
    n: int = 1000
    """Problems of each set; a twentieth of it for each length of chain, a quarter for each kind of offer."""
    digits: int = 24
    """Of the operands."""
    chains: int = 20
    """Longest chain asked for."""
    seed: int = 5
    """Fixes the problems."""

    def run(self) -> int:
        """Measure each model in turn, then draw."""
        from looplm.errors import InputError
        from looplm.evaluate.figures import save_figure
        from looplm.files import refuse_existing, refuse_no_figure
        from looplm.tasks.addition.depth import measure_depth, read_depth
        from looplm.tasks.addition.figures import depth_figure

        if not self.runs and not self.figure:
            raise InputError("there is nothing to do: give runs to measure, or --figure to draw the numbers that --out holds.")
        if self.figure:
            refuse_no_figure(self.figure)
        if not 0 <= self.chains <= self.digits:
            raise InputError(f"`--chains` must be from 0 to `--digits` ({self.digits}): got {self.chains}.")
        if self.runs:
            refuse_existing(self.out)
            measure_depth(self.runs, self.out, n=self.n, digits=self.digits, chains=self.chains, seed=self.seed)
        if self.figure:
            notes().print("wrote " + " and ".join(map(str, save_figure(depth_figure(read_depth(self.out)), self.figure))))
        return 0


def _load(name: str | None, mode: Mode | None, stop: HaltingOptions, device: "torch.device") -> "tuple[Trained, ByRole]":
    """The model that was asked for, or the shipped one of the mode, and when its tokens stop."""
    from looplm.errors import InputError
    from looplm.runs.checkpoint import load
    from looplm.tasks.addition.solve import task_of

    adder = load(name or {"parallel": "parallel-adder"}.get(mode or "", "adder"), device)
    trained = task_of(adder).mode
    if mode and mode != trained:
        raise InputError(
            f"`--mode` is {mode}, but {name} was trained to answer {trained}; leave --mode out, or give a model of that mode."
        )
    return adder, stop.resolve(adder.recipe.halting)


def _as_json(solution: "Solution") -> dict[str, object]:
    return {
        "problem": solution.problem,
        "answer": solution.answer,
        "loops_taken": solution.loops_taken,
        "block_evaluations": round(solution.block_evaluations, 3),
        "ran_out": solution.ran_out,
    }


def _numbered(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    return ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())


VERBS: dict[str, Any] = {"solve": Solve, "data": Data, "depth": Depth}
