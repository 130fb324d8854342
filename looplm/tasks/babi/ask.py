"""A story and a question of a user's own, answered by a trained model, with what it read on the way."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from looplm.errors import InputError
from looplm.loop.halting import ByRole
from looplm.models.body import StoryBody
from looplm.models.connection import Connection
from looplm.models.sentences import LoopedSentences
from looplm.runs.checkpoint import Trained
from looplm.stories.rows import parse_question
from looplm.stories.solve import solve
from looplm.task import TASKS


@dataclass(frozen=True)
class Step:
    """What the model would answer after a step."""

    answer: str
    probability: float
    reads: tuple[float, ...]
    """Of each fact, in this step; empty where the body cannot tell."""


@dataclass(frozen=True)
class Asked:
    """What a model made of a story and its question."""

    facts: tuple[str, ...]
    question: str
    steps: tuple[Step, ...]
    solved: str | None
    """The answer that follows by rule, where the solver reads every sentence."""
    supporting: tuple[int, ...]
    """Indices of the facts that it follows from."""

    @property
    def answer(self) -> str:
        """After the last step."""
        return self.steps[-1].answer

    @property
    def stands_from(self) -> int:
        """The first step, from 1, from which on the answer was the same."""
        others = [number for number, step in enumerate(self.steps, 1) if step.answer != self.answer]
        return max(others, default=0) + 1

    def as_json(self) -> dict[str, Any]:
        """All of it, with the answer and its probability in front."""
        taken = {"steps_taken": len(self.steps), "stands_from": self.stands_from}
        return {"answer": self.answer, "probability": self.steps[-1].probability} | taken | asdict(self)


@torch.no_grad()
def ask(trained: Trained, text: str) -> Asked:
    """The answer of a model that reads stories, with what it thought after each step.

    Args:
        trained: on a task whose rows are stories.
        text: facts, each closed by `.`, then a question, closed by `?`.

    Raises:
        InputError: if the model reads no stories, the text is no story with a question, or it has words or more facts
            than the model knows.

    Spec: [reasoning.ask][], [reasoning.refused][].
    """
    model, task = trained.model, trained.recipe.task
    if not isinstance(model, StoryBody):
        raise InputError(
            f"the model was trained on the task {TASKS.name_of(type(task))} with the body {trained.recipe.model.body!r}, "
            "which reads no stories; give a run of `looplm train ask` or `looplm train babi-16`."
        )
    question = parse_question(text)
    tokens = torch.tensor([task.prompt(text).tokens])
    most = trained.recipe.model.max_facts
    if len(question.facts) > most:
        raise InputError(f"the model reads at most {most} facts: got {len(question.facts)}; tell it fewer.")
    trained.recipe.model.check(tokens)
    loops = ByRole.of(trained.recipe.halting).answer.max_loops
    thought = model.think(tokens, trained.recipe.halting, keep_every_loop=True)
    assert thought.logits_per_loop is not None, "it was asked for"
    best = thought.logits_per_loop[:, 0, -1].softmax(-1).max(-1)
    reads = _reads(model, tokens, loops)
    solved = solve(question) or (None, ())
    return Asked(
        tuple(" ".join(fact) for fact in question.facts),
        " ".join(question.words),
        tuple(
            Step(task.answer([id]), probability, tuple(reads[at]) if reads else ())
            for at, (probability, id) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True))
        ),
        *solved,
    )


def _reads(model: StoryBody, tokens: torch.Tensor, loops: int) -> list[list[float]]:
    """How much is read of each fact in each step: by the question, or by the slots, their mean; empty: nothing is told.

    A Connection Transformer has read once before its first step; that reading is left out.

    Spec: [sentences.looks][].
    """
    if isinstance(model, LoopedSentences):
        looks: list[list[float]] = model.looks(tokens, loops)[:, 0].tolist()
        return looks
    if isinstance(model, Connection):
        _, *after = model.steps(model.story(tokens), loops)
        return [slots.reading[0].mean(0).tolist() for slots in after]
    return []
