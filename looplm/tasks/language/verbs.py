"""The command that text brings: generate. Imported by the command line alone, so heavy imports wait."""

import codecs
import io
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from looplm.cli.console import find_device, notes
from looplm.cli.halting import HaltingOptions


@dataclass(frozen=True)
class Generate:
    """Go on with a text, by a model that was trained on one: always the most likely byte."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run or a checkpoint of the task language."""
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[TEXT]")] = ""
    """How the text begins; default: not at all."""
    max_new_tokens: int = 200
    """Bytes that the model adds."""
    stop: Annotated[HaltingOptions, tyro.conf.arg(name="")] = field(default_factory=HaltingOptions)
    device: str = "cpu"
    """cpu, cuda or mps."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Print the beginning and what follows, in UTF-8; a character that is not finished is left out."""
        import torch

        from looplm.errors import InputError
        from looplm.runs.checkpoint import load
        from looplm.task import TASKS
        from looplm.tasks.language import Language, as_bytes
        from looplm.think.generate import generate

        if self.max_new_tokens < 1:
            raise InputError(f"`--max-new-tokens` must be at least 1: got {self.max_new_tokens}.")
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
        made = generate(
            trained.model,
            torch.tensor([prompt], device=trained.model.device),
            halting=self.stop.resolve(trained.recipe.halting),
            max_new_tokens=self.max_new_tokens,
            stop_token=-1,
        )
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        print(whole_characters(as_bytes([*prompt, *made.tokens[0]])))
        return 0


def whole_characters(text: bytes) -> str:
    """The text as far as its last whole character; what is no UTF-8 at all becomes U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(text)


VERBS: dict[str, Any] = {"generate": Generate}
