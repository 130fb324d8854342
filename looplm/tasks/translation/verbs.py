"""The command that translation brings: translate. Imported by the command line alone, so heavy imports wait."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from looplm.cli.console import find_device, notes


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


VERBS: dict[str, Any] = {"translate": Translate}
