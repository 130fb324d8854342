"""Trained models of bAbI beside their controls: a part taken away at test, and the baseline by rule."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import multimode
from typing import Any

import torch

from looplm.errors import InputError
from looplm.evaluate.scores import Attempts, evaluate, make_cell
from looplm.models.connection import ABLATIONS, Connection
from looplm.runs.checkpoint import Trained, load
from looplm.runs.results import Result, make_result, read_summary
from looplm.stories.format import Question, latest_of_its_kind
from looplm.task import TASKS
from looplm.tasks.babi import Babi
from looplm.train.fits import TEST_SEED

RULE_TASK = 16
"""The task that has a baseline by rule."""


def with_controls(
    runs: Sequence[Path], data: Path | None = None, on_message: Callable[[str], None] = lambda message: None
) -> Iterator[Result]:
    """The results of runs, with what they read, each followed by those of its ablations, and last the rule's.

    Runs of other recipes than the first one's are controls themselves, and stand as they are. One of another body than the
    Connection Transformer is followed by the answer that is most frequent in training.

    Args:
        runs: folders of complete runs.
        data: what the task reads, where it is no longer where it was.
        on_message: told what is being tested.

    Raises:
        InputError: if one is no run of the task babi.

    Spec: [connection.ablations][], [reasoning.latest-animal][].
    """
    models = [(run, _load(run, data)) for run in runs]
    first = models[0][1]
    for run, trained in models:
        (own,) = read_summary(run)["results"]
        if not isinstance(trained.model, Connection):
            yield own
            yield _most_frequent(trained)
            continue
        yield own | {"readings": readings(trained.model, trained)}
        if trained.recipe.name == first.recipe.name:
            for name, ablate in ABLATIONS.items():
                on_message(f"{run}: {name}")
                yield _tested(replace(trained, model=ablate(trained.model)), name)
    ruled = (
        trained for _, trained in models if isinstance(trained.recipe.task, Babi) and trained.recipe.task.number == RULE_TASK
    )
    if (one := next(ruled, None)) is not None:
        yield _answered(one, latest_of_its_kind, "latest-animal", "control: the colour of the latest animal of that kind")


@torch.no_grad()
def readings(model: Connection, trained: Trained) -> list[list[float]]:
    """The share of each reading, the mean over slots and test questions, that goes to each fact that is needed.

    Readings in their order, facts in the order in which the file names them; questions that need another number of facts
    than most are left out.

    Spec: [reasoning.supporting][].
    """
    recipe, task = trained.recipe, trained.recipe.task
    assert isinstance(task, Babi), "it was loaded as one"
    asked = task.questions(task.part, recipe.evaluation.problems_per_cell, TEST_SEED)
    wanted = multimode([len(question.supporting) for question in asked])[0]
    kept = [question for question in asked if len(question.supporting) == wanted]
    needed = torch.tensor([question.supporting for question in kept])[:, None]  # [B, 1, needed]
    steps = model.steps(model.story(task.collate(kept).tokens), recipe.halting.max_loops)
    shares = [slots.reading.gather(2, needed.expand(-1, slots.reading.shape[1], -1)).mean((0, 1)) for slots in steps]
    return [[round(share, 6) for share in each.tolist()] for each in shares]


def _load(run: Path, data: Path | None) -> Trained:
    trained = load(run)
    if not isinstance(trained.recipe.task, Babi):
        name = TASKS.name_of(type(trained.recipe.task))
        raise InputError(f"{run} was trained on the task {name}; give runs of the task babi.")
    return trained if data is None else replace(trained, recipe=_reading(trained.recipe, data))


def _reading(recipe: Any, data: Path) -> Any:
    return replace(recipe, task=replace(recipe.task, path=str(data.resolve())))


def _tested(trained: Trained, control: str) -> Result:
    """The same test set as the run's own."""
    recipe = trained.recipe
    wanted = (recipe.task, recipe.evaluation.sizes, recipe.evaluation.problems_per_cell, recipe.halting, TEST_SEED)
    title = f"control at test: {control}"
    named = replace(recipe, name=f"{recipe.name}-{control}-at-test", title=title)
    return make_result(replace(trained, recipe=named), list(evaluate(trained.model, *wanted)), recipe.halting, TEST_SEED)


def _most_frequent(trained: Trained) -> Result:
    task = trained.recipe.task
    assert isinstance(task, Babi), "it was loaded as one"
    ((answer, _),) = Counter(question.answer for question in task.training_questions()).most_common(1)
    return _answered(trained, lambda question: answer, "most-frequent", "control: the most frequent answer of training")


def _answered(trained: Trained, rule: Callable[[Question], str], name: str, title: str) -> Result:
    """A rule on the same test set; it has no parameters, and takes no steps."""
    recipe, task = trained.recipe, trained.recipe.task
    assert isinstance(task, Babi), "it was loaded as one"
    asked = task.questions(task.part, recipe.evaluation.problems_per_cell, TEST_SEED)
    solved = torch.tensor([rule(question) == question.answer for question in asked])
    nothing = torch.zeros(len(asked))
    cell = make_cell(task.part, task.number, Attempts(solved, nothing, nothing.long(), nothing, 0.0))
    named = replace(recipe, name=f"{recipe.name}-{name}", title=title)
    result = make_result(replace(trained, recipe=named), [cell], recipe.halting, TEST_SEED)
    return result | {"parameters": 0, "training": {"steps": 0}, "provenance": {}}
