"""The commands that text brings: generate, tokenizer, ngram. Imported by the command line alone, so heavy imports wait."""

import hashlib
import io
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from looplm.cli.console import find_device, notes, output
from looplm.cli.halting import HaltingOptions

if TYPE_CHECKING:
    from looplm.tasks.language import Language
    from looplm.tasks.language.tokenizer import Tokenizer
    from looplm.think.sampling import Sampling


_MOST_NEW = 100_000
"""Tokens: room is kept for all of them from the start."""
_MOST_STORIES = 10_000_000


@dataclass(frozen=True)
class SamplingOptions:
    """How a byte or piece is chosen; without any, the most likely one is taken (spec: generation)."""

    temperature: float = 0.0
    """Above 0, tokens are drawn: the lower, the more often the likely ones."""
    top_k: int | None = None
    """Draw among so many of the most likely tokens."""
    top_p: float | None = None
    """Draw among the most likely tokens whose probabilities sum to this."""
    min_p: float | None = None
    """Draw among tokens at least this share as likely as the most likely one."""
    typical_p: float | None = None
    """Draw among tokens about as surprising as the mean, whose probabilities sum to this."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that stand in the text become less likely."""
    no_repeated_ngram: int | None = None
    """No run of so many tokens stands in the text twice."""
    seed: int = 0
    """Of the random numbers."""

    def resolve(self) -> "Sampling":
        """The settings.

        Raises:
            InputError: if one is out of its range.
        """
        from looplm.settings import parse
        from looplm.think.sampling import Sampling

        return parse(Sampling, asdict(self), "how to choose tokens")


@dataclass(frozen=True)
class Generate:
    """Go on with a text, by a model that was trained on one: with the most likely bytes, or with drawn ones."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run or a checkpoint of the task language."""
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[TEXT]")] = ""
    """How the text begins; default: not at all."""
    max_new_tokens: int = 200
    """Bytes, or pieces, that the model adds."""
    max_seconds: float | None = None
    """End with the next token after so many seconds."""
    stop: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """End before this string, which is not printed; may be given several times."""
    halting: Annotated[HaltingOptions, tyro.conf.arg(name="")] = field(default_factory=HaltingOptions)
    choice: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(default_factory=SamplingOptions)
    device: str = "cpu"
    """cpu, cuda or mps."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Print the beginning and what follows, in UTF-8, as it comes; a character that is not finished is left out."""
        from looplm.errors import InputError
        from looplm.runs.checkpoint import load
        from looplm.task import TASKS
        from looplm.tasks.language import Language
        from looplm.think.generate import stream

        if not 1 <= self.max_new_tokens <= _MOST_NEW:
            raise InputError(f"`--max-new-tokens` must be from 1 to {_MOST_NEW:,}: got {self.max_new_tokens}.")
        sampling = self.choice.resolve()
        trained = load(self.model, find_device(self.device, self.threads))
        task = trained.recipe.task
        if not isinstance(task, Language):
            raise InputError(
                f"{self.model} was trained on the task {TASKS.name_of(type(task))}, which answers questions; "
                "give a run of `looplm train text`, or ask this one with `looplm trace`."
            )
        prompt = task.prompt(self.text).tokens
        if len(prompt) + self.max_new_tokens > task.context + 1:
            notes().print(f"the text grows beyond the {task.context:,} {task.unit} that the model was trained on.")
        made = stream(
            trained.model,
            [prompt],
            halting=self.halting.resolve(trained.recipe.halting),
            max_new_tokens=self.max_new_tokens,
            stop_token=-1 if task.vocabulary.stop is None else task.vocabulary.stop,
            sampling=sampling,
            max_seconds=self.max_seconds,
            stop_strings=self.stop,
            decode=task.whole,
        )
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        out = count = 0
        print(task.whole(prompt), end="", flush=True)
        for new in made:
            print(new.text, end="", flush=True)
            out, count = out + new.ran_out, count + 1
        print()
        if new.finish_reason == "time":
            notes().print(f"time was up after {count:,} of {self.max_new_tokens:,} {task.unit} (generation.max-seconds).")
        if out:
            notes().print(f"loops ran out on {out:,} of {count:,} {task.unit} (halting.ran-out).")
        return 0


@dataclass(frozen=True)
class TrainTokenizer:
    """Learn from texts how to split text into pieces; nothing that is text is ever lost (spec: korean)."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE [FILE ...]")]
    """Texts in UTF-8."""
    out: Path
    """The tokenizer's file, which must not exist."""
    vocab: int = 4000
    """Pieces. About 4,000 for 4 million characters; more make texts shorter, and need more text."""
    held_out_share: float = 0.1
    """Of each text, left out as training leaves it out: the recipe's `task.held_out_share` (spec: korean.unseen)."""
    delimiter: str = ""
    """A character that stands where no piece may cross, such as "|" between morphemes, and is no part of the text."""
    json: bool = False
    """Print the report as JSON."""

    def run(self) -> int:
        """Write the file, and print how it splits what it learned from."""
        from looplm.errors import InputError
        from looplm.files import refuse_existing, write_file
        from looplm.tasks.language.corpus import parted
        from looplm.tasks.language.tokenizer import train_tokenizer

        if not 0 <= self.held_out_share < 1:
            raise InputError(f"`--held-out-share` must be from 0 to below 1: got {self.held_out_share}.")
        refuse_existing(self.out)
        texts = [part for text in _texts(self.files) for part in parted(text, self.held_out_share, self.delimiter)[0]]
        tokenizer = train_tokenizer(texts, self.vocab, self.delimiter)
        write_file(self.out, tokenizer.model)
        plain = [text.replace(self.delimiter, "") for text in texts] if self.delimiter else texts
        return _print_report(tokenizer, plain, self.json)


@dataclass(frozen=True)
class ReportTokenizer:
    """How a tokenizer splits texts, such as held-out ones."""

    tokenizer: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.model")]
    """A tokenizer's file."""
    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE [FILE ...]")]
    """Texts in UTF-8."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Print the report."""
        from looplm.tasks.language.corpus import BOUNDARY
        from looplm.tasks.language.tokenizer import Tokenizer

        documents = [document for text in _texts(self.files) for document in text.split(BOUNDARY)]
        return _print_report(Tokenizer.load(self.tokenizer), documents, self.json)


@dataclass(frozen=True)
class TokenizerCommand:
    """Learn to split text into pieces, or see how a tokenizer splits."""

    action: Annotated[
        Annotated[TrainTokenizer, tyro.conf.subcommand("train", prefix_name=False)]
        | Annotated[ReportTokenizer, tyro.conf.subcommand("report", prefix_name=False)],
        tyro.conf.OmitArgPrefixes,
    ]

    def run(self) -> int:
        """Do what was asked."""
        return self.action.run()


def _texts(files: tuple[Path, ...]) -> list[str]:
    """What the files hold, all of them readable."""
    from looplm.errors import InputError
    from looplm.tasks.language.corpus import read_text

    if not files:
        raise InputError("no text was given; give one or more text files.")
    return [read_text(path) for path in files]


def _print_report(tokenizer: "Tokenizer", texts: list[str], as_json: bool) -> int:
    from looplm.tasks.language.tokenizer import report_on

    counts = {"sha256": tokenizer.sha256} | report_on(tokenizer, texts).as_json()
    if as_json:
        print(json.dumps(counts))
        return 0
    width = max(map(len, counts))
    for name, value in counts.items():
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        output().print(f"{name.replace('_', ' '):{width}}  {shown}", highlight=False)
    return 0


@dataclass(frozen=True)
class NGram:
    """What counting predicts of the text that runs were trained and tested on: the floor under their bits per character."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Finished runs of the task language on one text, with one tokenizer; the text must be where it was."""
    order: int = 5
    """Tokens of the longest n-grams; all shorter ones are shown too."""
    out: Path | None = None
    """Also write the runs' numbers and these as one summary; the file must not exist."""

    def run(self) -> int:
        """Count, and print a table of the sizes on which the runs were tested."""
        from looplm.cli.tables import print_table
        from looplm.errors import InputError
        from looplm.files import refuse_existing, to_json, write_file
        from looplm.runs.results import make_summary, read_summary
        from looplm.tasks.language.ngram import MOST, floor

        if not self.runs:
            raise InputError("no run was given; give one or more run folders of `looplm train text` or `ko-text`.")
        if not 1 <= self.order <= MOST:
            raise InputError(f"`--order` must be from 1 to {MOST}: got {self.order}.")
        if self.out:
            refuse_existing(self.out)
        results = [result for run in self.runs for result in read_summary(run)["results"]]
        task = _one_text(self.runs)
        seed, cells = results[0]["evaluation"]["seed"], [(cell["size"], cell["n"]) for cell in results[0]["cells"]]
        for result in results:
            if (result["evaluation"]["seed"], [(cell["size"], cell["n"]) for cell in result["cells"]]) != (seed, cells):
                raise InputError("the runs were not tested on the same windows; give those of one recipe and its controls.")
        counted = [[round(bits, 6) for bits in row] for row in floor(task, cells, seed, self.order)]
        header = [task.unit, *(r["preset"] for r in results), *(f"{n}-gram" for n in range(1, self.order + 1))]
        rows = [
            [str(size), *(_bits(result["cells"][i]) for result in results), *(f"{bits:.3f}" for bits in counted[i])]
            for i, (size, _) in enumerate(cells)
        ]
        output().print("Bits per character, lower is better", style="bold")
        print_table(output(), header, rows)
        if self.out:
            what = {"text": _file_of(Path(task.path)), "order": self.order, "seed": seed, "held_out_share": task.held_out_share}
            floors = [
                {"set": "held-out", "size": size, "n": n, "bits_per_character": bits}
                for (size, n), bits in zip(cells, counted, strict=True)
            ]
            write_file(self.out, to_json(make_summary(results) | {"ngram": what | {"cells": floors}}))
        return 0


def _one_text(runs: tuple[Path, ...]) -> "Language":
    """The task of some runs, if it is the same text in the same tokens."""
    from looplm.errors import InputError
    from looplm.runs.checkpoint import load
    from looplm.tasks.language import Language

    tasks = [load(run).recipe.task for run in runs]
    for run, task in zip(runs, tasks, strict=True):
        if not isinstance(task, Language):
            raise InputError(f"{run} was not trained on a text; give runs of `looplm train text` or `ko-text`.")
        first = tasks[0]
        assert isinstance(first, Language)
        if (task.path, task.held_out_share, task.pieces) != (first.path, first.held_out_share, first.pieces):
            raise InputError(f"{run} has another text, tokenizer or `held_out_share` than {runs[0]}; look at one at a time.")
    assert isinstance(first, Language)
    return first


def _bits(cell: dict[str, Any]) -> str:
    return f"{cell['bits_per_character']:.3f}" if "bits_per_character" in cell else ""


def _file_of(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@dataclass(frozen=True)
class WriteWorld:
    """Write stories and dialogues of the small world, each a document (spec: world)."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The text, which must not exist."""
    stories: int = 30_000
    """Documents."""
    seed: int = 0
    """Of the random numbers."""
    delimiter: str = ""
    """A character to stand between a noun and its particle, and before a name: for `looplm tokenizer train --delimiter`."""

    def run(self) -> int:
        """Write the file."""
        from looplm.errors import InputError
        from looplm.files import refuse_existing, write_file
        from looplm.tasks.language.corpus import BOUNDARY
        from looplm.tasks.language.world.stories import story

        _check_stories(self.stories)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"`--seed` must be from 0 to 2**63 - 1: got {self.seed}.")
        refuse_existing(self.file)
        documents = ("\n".join(story(number, self.seed, self.delimiter)) + "\n" for number in range(self.stories))
        write_file(self.file, BOUNDARY.join(documents).encode())
        return 0


@dataclass(frozen=True)
class JudgeWorld:
    """Let a model write stories of the small world, and count what is right in them (spec: world)."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run or a checkpoint of `ko-tiny`."""
    text: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """What it was trained on: sentences that stand there are not new."""
    stories: int = 200
    """To be written, and judged."""
    sentences: int = 1000
    """The first ones of them, of which shares are counted."""
    seed: int = 0
    """Of the random numbers."""
    out: Path | None = None
    """Also write the counts as JSON, with the first stories as they came; the file must not exist."""

    def run(self) -> int:
        """Write, judge, and print the counts."""
        from looplm.errors import InputError
        from looplm.files import refuse_existing, to_json, write_file
        from looplm.runs.checkpoint import load
        from looplm.tasks.language.world.judge import judge_model

        _check_stories(self.stories)
        if not 1 <= self.sentences <= _MOST_STORIES:
            raise InputError(f"`--sentences` must be from 1 to {_MOST_STORIES:,}: got {self.sentences}.")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"`--seed` must be from 0 to 2**31 - 1: got {self.seed}.")
        if self.out:
            refuse_existing(self.out)
        trained = load(self.model, find_device("cpu", 1))
        report = judge_model(trained, self.text, self.stories, self.sentences, self.seed)
        for name, cell in report["shares"].items():
            shown = f"{cell['right']:,} of {cell['n']:,}" if isinstance(cell, dict) else f"{cell:,}"
            output().print(f"{name.replace('_', ' '):20}  {shown}", highlight=False)
        if self.out:
            write_file(self.out, to_json(report))
        return 0


@dataclass(frozen=True)
class World:
    """A small world of Korean stories whose every sentence can be checked: write its text, or judge what a model writes."""

    action: Annotated[
        Annotated[WriteWorld, tyro.conf.subcommand("write", prefix_name=False)]
        | Annotated[JudgeWorld, tyro.conf.subcommand("judge", prefix_name=False)],
        tyro.conf.OmitArgPrefixes,
    ]

    def run(self) -> int:
        """Do what was asked."""
        return self.action.run()


def _check_stories(count: int) -> None:
    from looplm.errors import InputError

    if not 1 <= count <= _MOST_STORIES:
        raise InputError(f"`--stories` must be from 1 to {_MOST_STORIES:,}: got {count}.")


VERBS: dict[str, Any] = {"generate": Generate, "tokenizer": TokenizerCommand, "ngram": NGram, "world": World}
