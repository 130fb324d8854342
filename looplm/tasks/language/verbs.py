"""The commands that text brings: generate, tokenizer. Imported by the command line alone, so heavy imports wait."""

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
    from looplm.tasks.language.tokenizer import Tokenizer
    from looplm.think.sampling import Sampling


_MOST_NEW = 100_000
"""Tokens: room is kept for all of them from the start."""


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
            stop_token=-1,
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
        texts = [part for text in _texts(self.files) for part in parted(text, self.held_out_share)[0]]
        tokenizer = train_tokenizer(texts, self.vocab)
        write_file(self.out, tokenizer.model)
        return _print_report(tokenizer, texts, self.json)


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
        from looplm.tasks.language.tokenizer import Tokenizer

        return _print_report(Tokenizer.load(self.tokenizer), _texts(self.files), self.json)


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


VERBS: dict[str, Any] = {"generate": Generate, "tokenizer": TokenizerCommand}
