"""The command that translation brings: translate. Imported by the command line alone, so heavy imports wait."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from looplm.cli.console import find_device, notes, output


@dataclass(frozen=True)
class Translate:
    """Translate an English sentence of the grammar into Korean, by a model that was trained on it."""

    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """Such as "I love you"; a level of speech may stand in front: plain, polite or formal."""
    model: str
    """A run or a checkpoint of the task translation."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Print what the model writes, right or wrong; if it is wrong, a note says what the grammar has."""
        from looplm.errors import InputError
        from looplm.runs.checkpoint import load
        from looplm.task import TASKS
        from looplm.tasks.translation import Translation
        from looplm.tasks.translation.grammar import parse
        from looplm.think.answer import respond

        parse(self.text)  # refuse before a model is loaded
        trained = load(self.model, find_device(self.device, self.threads))
        task = trained.recipe.task
        if not isinstance(task, Translation):
            name = TASKS.name_of(type(task))
            raise InputError(f"{self.model} was trained on the task {name}; give a run of `looplm train grammar`.")
        (response,) = respond(trained.model, task, [self.text], trained.recipe.halting)
        print(response.answer)
        right = task.right(self.text)
        if response.answer != right:
            notes().print(f"the grammar has: {right}")
        return 0


@dataclass(frozen=True)
class Heads:
    """Measure what each head of trained encoder-decoders reads, beside a shuffled control, and what is wrong without it."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Runs of `looplm train grammar`, such as one of each seed."""
    out: Path
    """Where the numbers go; the file must not exist."""
    n: int = 300
    """Sentences of two clauses, with pairs that training never saw."""
    seed: int = 21
    """Of the sentences."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Measure, print the head that reads each relation most, write all numbers."""
        from looplm.cli.tables import print_table
        from looplm.errors import InputError
        from looplm.files import refuse_existing, to_json, write_file
        from looplm.runs.checkpoint import load
        from looplm.task import check_count
        from looplm.tasks.translation.heads import SCHEMA, measure_heads

        if not self.runs:
            raise InputError("no run was given; give the folders of runs such as those of `looplm train grammar`.")
        refuse_existing(self.out)
        check_count(self.n)
        find_device("cpu", self.threads)
        made = []
        for run in self.runs:
            trained = load(run)
            notes().print(f"measuring {run}")
            source = {name: trained.provenance.get(name) for name in ("preset", "seed", "commit")}
            made.append({"run": source, **measure_heads(trained, self.n, self.seed)})
        rows = []
        for one in made:
            for relation in one["relations"]:
                best = max(relation["heads"], key=lambda head: head["share"] - (head["shuffled"] or 0))
                which = f"layer {best['layer'] + 1}, loop {best['loop'] + 1}, head {best['head'] + 1}"
                shares = ["-" if best[name] is None else f"{100 * best[name]:.1f}" for name in ("share", "shuffled")]
                rows.append([relation["kind"], relation["name"], which, f"{relation['pairs']:,}", *shares])
        print_table(output(), ["attention", "relation", "best head", "pairs", "read, %", "shuffled, %"], rows, left=3)
        write_file(self.out, to_json({"schema": SCHEMA, "runs": made}))
        return 0


VERBS: dict[str, Any] = {"translate": Translate, "heads": Heads}
