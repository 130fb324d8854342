"""The command that text brings: generate. Imported by the command line alone, so heavy imports wait."""

import codecs
import io
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from looplm.cli.console import find_device, notes
from looplm.cli.halting import HaltingOptions

if TYPE_CHECKING:
    from looplm.think.sampling import Sampling


_MOST_NEW = 100_000
"""Bytes: room is kept for all of them from the start."""


@dataclass(frozen=True)
class SamplingOptions:
    """How a byte is chosen; without any, the most likely one is taken (spec: generation)."""

    temperature: float = 0.0
    """Above 0, bytes are drawn: the lower, the more often the likely ones."""
    top_k: int | None = None
    """Draw among so many of the most likely bytes."""
    top_p: float | None = None
    """Draw among the most likely bytes whose probabilities sum to this."""
    min_p: float | None = None
    """Draw among bytes at least this share as likely as the most likely one."""
    typical_p: float | None = None
    """Draw among bytes about as surprising as the mean, whose probabilities sum to this."""
    repetition_penalty: float = 1.0
    """Above 1, bytes that stand in the text become less likely."""
    no_repeated_ngram: int | None = None
    """No run of so many bytes stands in the text twice."""
    seed: int = 0
    """Of the random numbers."""

    def resolve(self) -> "Sampling":
        """The settings.

        Raises:
            InputError: if one is out of its range.
        """
        from looplm.settings import parse
        from looplm.think.sampling import Sampling

        return parse(Sampling, asdict(self), "how to choose bytes")


@dataclass(frozen=True)
class Generate:
    """Go on with a text, by a model that was trained on one: with the most likely bytes, or with drawn ones."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run or a checkpoint of the task language."""
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[TEXT]")] = ""
    """How the text begins; default: not at all."""
    max_new_tokens: int = 200
    """Bytes that the model adds."""
    max_seconds: float | None = None
    """End with the next byte after so many seconds."""
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
        from looplm.tasks.language import Language, as_bytes
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
            notes().print(f"the text grows beyond the {task.context:,} bytes that the model was trained on.")
        made = stream(
            trained.model,
            [prompt],
            halting=self.halting.resolve(trained.recipe.halting),
            max_new_tokens=self.max_new_tokens,
            stop_token=-1,
            sampling=sampling,
            max_seconds=self.max_seconds,
            stop_strings=self.stop,
            decode=lambda tokens: whole_characters()(as_bytes(tokens)),
        )
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        out = count = 0
        print(whole_characters()(as_bytes(prompt)), end="", flush=True)
        for new in made:
            print(new.text, end="", flush=True)
            out, count = out + new.ran_out, count + 1
        print()
        if new.finish_reason == "time":
            notes().print(f"time was up after {count:,} of {self.max_new_tokens:,} bytes (generation.max-seconds).")
        if out:
            notes().print(f"loops ran out on {out:,} of {count:,} bytes (halting.ran-out).")
        return 0


def whole_characters() -> Callable[[bytes], str]:
    """Gives of bytes, as they come, the text up to the last whole character; what is no UTF-8 at all becomes U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode


VERBS: dict[str, Any] = {"generate": Generate}
