"""The commands that bAbI brings: controls and stories. Imported by the command line alone, so heavy imports wait."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from looplm.cli.console import find_device, notes, output

_MOST_STORIES = 1_000_000


@dataclass(frozen=True)
class Controls:
    """Test runs of bAbI with a part taken away, beside the baseline by rule; the numbers go into one summary."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Complete runs: seeds of one recipe, then those of its controls."""
    out: Path
    """Where the summary goes; the file must not exist."""
    data: Path | None = None
    """What the task reads, where it is no longer where the runs found it."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Test, print the table, write the summary."""
        from looplm.cli.tables import print_comparison
        from looplm.errors import InputError
        from looplm.files import refuse_existing, to_json, write_file
        from looplm.runs.results import groups_of, make_summary, refuse_twice
        from looplm.tasks.babi.controls import with_controls

        if not self.runs:
            raise InputError("no run was given; give the folders of runs such as those of `looplm train babi-16`.")
        refuse_existing(self.out)
        find_device("cpu", self.threads)
        results = list(with_controls(self.runs, self.data, notes().print))
        refuse_twice(results)
        write_file(self.out, to_json(make_summary(results)))
        groups = groups_of(results)
        main = next(iter(groups))
        controls = [result for name, group in groups.items() if name != main for result in group]
        print_comparison(output(), groups[main], controls)
        return 0


@dataclass(frozen=True)
class Stories:
    """Write stories like those of five tasks of bAbI, drawn by rule: `looplm train babi-16 --data FILE` learns from them."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Where they go, a name that ends in .txt; the file must not exist."""
    task: int = 16
    """Number of the task: 1, 2, 15, 16 or 19."""
    language: Literal["en", "ko"] = "en"
    """English or Korean; the stories are the same."""
    count: int = 12_000
    """Stories, of as many questions each as in the official files: 5, 5, 4, 1 or 1."""
    seed: int = 0
    """Fixes the stories."""

    def run(self) -> int:
        """Draw and write."""
        from looplm.errors import InputError
        from looplm.files import refuse_existing, write_file
        from looplm.stories.draw import SIMULATED
        from looplm.stories.simulate import simulate

        if self.task not in SIMULATED:
            raise InputError(
                f"`--task` must be one of {', '.join(map(str, SIMULATED))}, whose stories are drawn: got {self.task}."
            )
        if not 1 <= self.count <= _MOST_STORIES:
            raise InputError(f"`--count` must be from 1 to {_MOST_STORIES:,}: got {self.count}.")
        if self.out.suffix != ".txt":
            raise InputError(f"`FILE` must end in .txt, so that it can be read again: got {self.out}.")
        refuse_existing(self.out)
        lines = simulate(self.count, self.seed, self.task, self.language)
        write_file(self.out, "".join(line + "\n" for line in lines).encode())
        notes().print(f"wrote {self.out}: {self.count:,} stories of task {self.task}")
        return 0


@dataclass(frozen=True)
class Ask:
    """Ask a question about a short story, in English or Korean: the answer, how sure it is, and what was read on the way."""

    story: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORY")]
    """Facts, each closed by a full stop, such as "Mary went to the kitchen. Mary took the milk."."""
    question: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[QUESTION]")] = ""
    """Such as "Where is the milk?"; it may stand at the end of the story instead."""
    model: str = "ask"
    """A run, a checkpoint, or the name of a shipped model."""
    trace: bool = False
    """Also show what the model would answer after each step, and which facts it reads."""
    json: bool = False
    """Print it as JSON, every step included."""

    def run(self) -> int:
        """Answer, and say what follows by rule where every sentence is known."""
        from looplm.cli.tables import print_table
        from looplm.runs.checkpoint import load
        from looplm.stories.rows import parse_question
        from looplm.tasks.babi.ask import ask

        text = f"{self.story.strip()} {self.question.strip()}".strip()
        parse_question(text)  # refuse before a model is loaded
        asked = ask(load(self.model, find_device("cpu")), text)
        out = output()
        if self.json:
            print(json.dumps(asked.as_json(), ensure_ascii=False))
            return 0
        step, taken = asked.steps[-1], len(asked.steps)
        out.print(
            f"{step.answer}  {step.probability:.1%}  {taken} steps, the same from step {asked.stands_from} on", markup=False
        )
        if asked.solved:
            needed = " and ".join(str(i + 1) for i in asked.supporting)
            out.print(f"by rule: {asked.solved}, from facts {needed}", markup=False)
        if self.trace:
            for number, fact in enumerate(asked.facts, 1):
                out.print(f"{'*' if number - 1 in asked.supporting else ' '} {number:2} {fact}", markup=False)
            rows = [
                [str(number), each.answer, f"{each.probability:.1%}", *(f"{share:.0%}" for share in each.reads)]
                for number, each in enumerate(asked.steps, 1)
            ]
            told = len(rows[0]) - 3
            header = [f"{number}{'*' if number - 1 in asked.supporting else ''}" for number in range(1, told + 1)]
            print_table(out, ["step", "answer", "sure", *header], rows)
            out.print("Columns by number: how much of each fact is read in the step; * the answer follows from it by rule.")
        return 0


VERBS: dict[str, Any] = {"ask": Ask, "controls": Controls, "stories": Stories}
