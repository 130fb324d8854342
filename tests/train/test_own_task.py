"""A task of one's own, named in a recipe: it is used as it is, or refused with what it lacks."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import CPU, TINY, outcome

from looplm.errors import InputError
from looplm.runs.run import run_recipe
from looplm.settings import as_table, merge
from looplm.train.recipe import Recipe, load_recipe

OWN_TASK = '''
from dataclasses import dataclass, replace

import torch

from looplm.errors import InputError
from looplm.task import Batch, Prompt, Suite, Vocabulary


@dataclass(frozen=True)
class Copy:
    """Say the letter once more."""

    letters: int = 3
    fault: str = ""

    vocabulary = Vocabulary(("a", "b", "c", "^", "_"), pad=4, stop=None)
    suites = {"all": Suite("all", "letters")}
    trained_sizes = (1, 1)

    @property
    def example(self):
        return "z" if self.fault == "example" else "b"

    def batch(self, rows, draw):
        if self.fault == "batch":
            raise InputError("no rows today.")
        letters = draw.of("letters").uniform(rows, 1).mul(self.letters).long()
        return self._batch(letters)

    def _batch(self, letters):
        tokens = torch.cat((torch.full_like(letters, 3), letters), 1)
        scored = torch.tensor([False, self.fault != "unscored"]).expand(tokens.shape)
        targets = torch.cat((letters, letters), 1) + (9 if self.fault == "targets" else 0)
        real = torch.tensor([True, self.fault != "padding"]).expand(tokens.shape)
        made = Batch(tokens + (2 if self.fault == "tokens" else 0), targets, scored, real)
        return replace(made, scored=scored[:, :1]) if self.fault == "shapes" else made

    def longest(self):
        return self._batch(torch.zeros(1, 1, dtype=torch.int64))

    def suite(self, name, size, count, seed):
        return self._batch((torch.arange(count) % self.letters)[:, None])

    def prompt(self, text):
        if text not in ("a", "b", "c"):
            raise InputError(f"{text!r} is no letter.")
        tokens = [3, "abc".index(text)] + [0] * (100 if self.fault == "long" else 0)
        return Prompt(tokens, max_new_tokens=0 if self.fault == "answer" else 1)

    def answer(self, ids):
        return self.vocabulary.text(ids)

    def right(self, text):
        return text

    def clauses(self):
        return ()


@dataclass(frozen=True)
class Lacking:
    """Has no answers."""

    vocabulary = Vocabulary(("a", "b"), pad=0)


def function():
    """No class."""


not_one = 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of one's own, by a name that no other test has used."""
    name = "own_" + tmp_path.name.replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN_TASK)
    (tmp_path / f"{name}_broken.py").write_text("1 / 0\n")
    (tmp_path / f"{name}_wrong.py").write_text("def (\n")
    (tmp_path / f"{name}_needs.py").write_text("import nosuchmodule\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def of_task(name: str, **settings: Any) -> Recipe:
    base = merge(TINY, {"task": {"name": name, **settings}, "model": {"positions": "rope"}, "evaluation": {"sizes": [1]}})
    return load_recipe("first-light", base)


@pytest.mark.spec("tasks.face", "training.refused-before-step-one")
@pytest.mark.usefixtures("no_pictures")
def test_a_task_of_ones_own_goes_through_all_stages(own: str, tmp_path: Path) -> None:
    recipe = of_task(f"{own}:Copy", letters=2)
    assert recipe.model.vocab_size == 5
    assert as_table(recipe)["task"] == {"name": f"{own}:Copy", "letters": 2, "fault": ""}
    result = run_recipe(recipe, 0, tmp_path / "run", CPU)
    assert result["task"] == f"{own}:Copy"
    assert outcome(tmp_path / "run")["trace"]["problem"] == "b"


@pytest.mark.spec("tasks.refused")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            ":Lacking",
            "is no task: it lacks `suites`, `trained_sizes`, `example`, `batch`, `longest`, `suite`",
        ),
        (":function", "is no class, so it is no task"),
        (":not_one", "is no class, so it is no task"),
        (":Nosuch", "has no 'Nosuch', so there is no such task"),
        ("_none:Copy", "there is no module"),
        ("_broken:Copy", "cannot be imported: ZeroDivisionError: division by zero"),
        ("_wrong:Copy", "cannot be imported: SyntaxError"),
        ("_needs:Copy", "there is no module 'nosuchmodule'"),
        (":", "cannot be imported|has no ''"),
    ],
)
def test_what_is_no_task_is_refused_with_what_it_lacks(name: str, says: str, own: str) -> None:
    with pytest.raises(InputError, match=says):
        of_task(own + name)


@pytest.mark.spec("training.refused-before-step-one")
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("batch", "a training batch cannot be drawn: no rows today"),
        ("unscored", "a training batch has a row in which no token is scored"),
        ("tokens", "a training batch has tokens of .* but the vocabulary ends at 4"),
        ("targets", "a training batch has scored targets of .* but the vocabulary ends at 4"),
        ("padding", "a training batch scores padding"),
        ("shapes", r"must have tokens, targets, scored and real of one shape \[N, T\]"),
        ("example", "the task's example 'z' is no question of it: 'z' is no letter"),
        ("long", "the task's example has 102 tokens, but a trace shows at most 64"),
        ("answer", "the task's example 'b' asks for no answer"),
    ],
)
def test_a_task_that_makes_what_no_model_can_use_is_refused(fault: str, says: str, own: str) -> None:
    with pytest.raises(InputError, match=says):
        of_task(f"{own}:Copy", fault=fault)
