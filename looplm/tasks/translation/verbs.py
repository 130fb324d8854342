"""The command that translation brings: translate. Imported by the command line alone, so heavy imports wait."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from looplm.cli.console import find_device, notes, output


@dataclass(frozen=True)
class Translate:
    """Translate an English sentence of the grammar into Korean, by a model that was trained on it."""

    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[TEXT]")] = ""
    """Such as "I love you" or "polite the cat saw the old book"; plain, polite or formal in front is the level of speech."""
    model: str = "translator"
    """A run or a checkpoint of the task translation, or the name of a shipped model."""
    words: bool = False
    """List the words that sentences may have, and translate nothing."""
    trace: bool = False
    """Also show, for each syllable, how sure the model is, what else it might write, and which English word it reads most."""
    json: bool = False
    """Print the trace as JSON."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Print what the model writes, right or wrong; if it is wrong, a note says what the grammar has."""
        import torch

        from looplm.cli.tables import print_table
        from looplm.errors import InputError
        from looplm.runs.checkpoint import load
        from looplm.task import TASKS
        from looplm.tasks.translation import Translation
        from looplm.tasks.translation.grammar import parse, words_by_kind
        from looplm.tasks.translation.written import written

        if self.words:
            for kind, words in words_by_kind().items():
                output().print(f"{kind}: {', '.join(words)}", markup=False, soft_wrap=True)
            return 0
        parse(self.text)  # refuse before a model is loaded
        trained = load(self.model, find_device(self.device, self.threads), torch.float32)
        task = trained.recipe.task
        if not isinstance(task, Translation):
            name = TASKS.name_of(type(task))
            raise InputError(f"{self.model} was trained on the task {name}; give a run of `looplm train grammar`.")
        made = written(trained, self.text)
        if self.json:
            print(json.dumps(made, ensure_ascii=False))
            return 0
        print(made["answer"])
        if self.trace:
            rows = []
            for syllable in made["syllables"]:
                (first, sure), *others = [
                    (each["said"].replace(" ", "space"), f"{100 * each['share']:.1f}") for each in syllable["candidates"]
                ]
                reads = syllable.get("reads", {"word": "-", "share": 0})
                rows.append([first, sure, ", ".join(map(" ".join, others)), reads["word"], f"{100 * reads['share']:.0f}"])
            print_table(output(), ["says", "sure, %", "or else, %", "reads most", "of it, %"], rows)
        if made["answer"] != made["right"]:
            notes().print(f"the grammar has: {made['right']}")
        return 0


@dataclass(frozen=True)
class Heads:
    """Measure what each attention head reads, beside a control (another sentence's answer), and what goes wrong without it."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Runs of `looplm train grammar` or `looplm train translator`, such as one of each seed."""
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
        from looplm.tasks.translation.heads import SCHEMA, measure_heads, read_heads_of

        if not self.runs:
            raise InputError("no run was given; give the folders of runs such as those of `looplm train grammar`.")
        refuse_existing(self.out)
        check_count(self.n)
        find_device("cpu", self.threads)
        loaded = [(run, load(run)) for run in self.runs]
        for _, trained in loaded:
            read_heads_of(trained)  # refuse before the first is measured
        made = []
        for run, trained in loaded:
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


@dataclass(frozen=True)
class Choosing:
    """Translate the same sentences greedily, by beam search and by drawing: exactness against diversity."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run or a checkpoint of the task translation, or the name of a shipped model."""
    out: Path
    """Where the numbers go; the file must not exist."""
    n: int = 100
    """Sentences of two clauses, with pairs that training never saw."""
    draws: int = 4
    """Translations of each sentence by each way that draws at random."""
    seed: int = 22
    """Of the sentences."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Translate, print a line for each way, write all numbers."""
        import torch

        from looplm.cli.tables import print_table
        from looplm.errors import InputError
        from looplm.files import refuse_existing, to_json, write_file
        from looplm.runs.checkpoint import load
        from looplm.task import check_count
        from looplm.tasks.translation.choosing import measure_choosing

        refuse_existing(self.out)
        check_count(self.n)
        if not 1 <= self.draws <= 100:
            raise InputError(f"`--draws` must be from 1 to 100: got {self.draws}.")
        trained = load(self.model, find_device("cpu", self.threads), torch.float32)
        made = measure_choosing(trained, self.n, self.draws, self.seed, notes().print)
        rows = [
            [way["name"], f"{100 * way['right'] / way['n']:.1f}", f"{way['distinct']:.2f}", f"{way['log_probability']:.2f}"]
            for way in made["ways"]
        ]
        print_table(output(), ["chosen by", "right, %", f"distinct of {self.draws}", "log-probability"], rows, left=1)
        source = {name: trained.provenance.get(name) for name in ("preset", "seed", "commit")}
        write_file(self.out, to_json({"run": source} | made))
        return 0


VERBS: dict[str, Any] = {"translate": Translate, "heads": Heads, "choosing": Choosing}
