"""What holds of every task, and that one from elsewhere is as good as ours."""

import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.cli import main
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.settings import as_table
from looplm.stories.simulate import simulate
from looplm.task import FACE, TASKS, Batch, Task
from looplm.tasks.addition import Addition
from looplm.tasks.babi import Babi
from looplm.tasks.language import Language
from looplm.tasks.prefix_sums import PrefixSums
from looplm.tasks.stories import Stories
from looplm.tasks.translation import Translation
from looplm.train.recipe import parse_recipe

STORIES = Path(tempfile.mkdtemp()) / "qa16_simulated_train.txt"
STORIES.write_text("\n".join(simulate(200, 0)))
EVERY: list[Task] = [
    Addition(),
    Addition(mode="parallel", max_digits=7),
    Addition(format="equals-first"),
    PrefixSums(max_bits=12),
    Language(path=os.path.relpath(Path(__file__).parents[2] / "README.md"), context=24),
    Babi(path=str(STORIES)),
    Babi(path=str(STORIES), empty=0.2),
    Stories(empty=0.1),
    Translation(),
]
NAMES = [f"{TASKS.name_of(type(task))}-{number}" for number, task in enumerate(EVERY)]
"""Without paths, which differ between the processes that run the tests."""


def same(ours: Batch, whole: Batch, rows: slice) -> None:
    width = ours.tokens.shape[1]
    for name in ("tokens", "targets", "scored", "real"):
        mine, theirs = getattr(ours, name), getattr(whole, name)[rows, :width]
        seen = ours.real if name in ("tokens", "targets") else torch.ones_like(ours.real)
        assert torch.equal(mine[seen], theirs[seen]), name


@pytest.mark.spec("tasks.rows")
@pytest.mark.parametrize("task", EVERY, ids=NAMES)
@given(st.integers(0, 99), st.integers(0, 9), st.integers(0, 5), st.integers(1, 4))
def test_rows_drawn_apart_are_those_drawn_together(task: Task, seed: int, step: int, start: int, count: int) -> None:
    draw = Draw(seed, "problems", step)
    same(task.batch(range(start, start + count), draw), task.batch(range(10), draw), slice(start, start + count))


@pytest.mark.spec("tasks.held-out", "tasks.face")
@pytest.mark.parametrize("task", EVERY, ids=NAMES)
def test_a_task_gives_what_its_face_says(task: Task) -> None:
    for name, suite in task.suites.items():
        assert suite.name == name
        size = task.trained_sizes[1]
        one, again, other = (task.suite(name, size, 7, seed) for seed in (3, 3, 4))
        assert torch.equal(one.tokens, again.tokens)
        assert not torch.equal(one.tokens, other.tokens)
        assert len(one) == 7
        assert bool(one.scored.any(1).all())
        assert not bool((one.scored & ~one.real).any())
    longest = task.longest()
    drawn = task.batch(range(300), Draw(0, "problems"))
    assert drawn.real.sum(1).max() <= longest.tokens.shape[1]
    assert int(drawn.tokens.max()) < len(task.vocabulary)
    prompt = task.prompt(task.example)
    assert (prompt.slots > 0) != (prompt.max_new_tokens > 0)
    assert (task.right(task.example) is None) == all(suite.scored_by == "loss" for suite in task.suites.values())
    kind = TASKS.find(TASKS.name_of(type(task)))
    assert kind is type(task)


@pytest.mark.parametrize("task", EVERY, ids=NAMES)
def test_a_part_of_a_batch_is_cut_to_its_rows(task: Task) -> None:
    whole = task.batch(range(9), Draw(1, "problems"))
    parts = list(whole.parts(4))
    assert [len(part) for part in parts] == [4, 4, 1]
    for number, part in enumerate(parts):
        same(part, whole, slice(4 * number, 4 * number + len(part)))
        assert part.tokens.shape[1] == part.real.sum(1).max()


MINE = '''
"""A task of someone else's: say the last letter again."""

from dataclasses import dataclass

import torch

from looplm.task import Batch, Prompt, Suite, Vocabulary


@dataclass(frozen=True)
class Echo:
    letters: int = 3

    vocabulary = Vocabulary(("a", "b", "c", ".", "_"), pad=4, stop=3)
    suites = {"all": Suite("all", "letters")}
    example = "ba"

    @property
    def trained_sizes(self):
        return 1, self.letters

    def _ask(self, letters):
        tokens = torch.cat((letters, letters[:, -1:], torch.full_like(letters[:, :1], 3)), 1)
        scored = torch.zeros_like(tokens[:, 1:], dtype=torch.bool)
        scored[:, -2:] = True
        return Batch(tokens[:, :-1], tokens[:, 1:], scored, torch.ones_like(scored))

    def batch(self, rows, draw):
        return self._ask((draw.uniform(rows, self.letters) * 3).long())

    def longest(self):
        return self._ask(torch.zeros(1, self.letters, dtype=torch.int64))

    def suite(self, name, size, count, seed):
        return self._ask(torch.randint(0, 3, (count, size), generator=torch.Generator().manual_seed(seed)))

    def prompt(self, text):
        return Prompt(["abc".index(letter) for letter in text], max_new_tokens=2)

    def answer(self, ids):
        return self.vocabulary.text(ids[:1])

    def right(self, text):
        return text[-1]

    def clauses(self):
        return ("tasks.exact-match",)
'''
RULE = '''
"""A rule of someone else's: tokens halt after even loops."""

from pydantic.dataclasses import dataclass

from looplm.loop.halting import Bounded


@dataclass(frozen=True)
class Even(Bounded):
    def ready(self, seen):
        return (seen.l % 2 == 0).expand_as(seen.guess)


CHOICE = Even
'''
RECIPE = """
[task]
name = "{task}"
letters = 4
[model]
width = 16
heads = 2
mlp_width = 32
[training]
steps = 150
batch_size = 16
[training.schedule]
rule = "constant"
peak = 1e-2
[halting]
rule = "{rule}"
max_loops = 4
[evaluation]
sizes = [2, 4]
problems_per_cell = 20
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of someone else's modules, and the current one."""
    (tmp_path / "echo_task.py").write_text(MINE)
    (tmp_path / "even_rule.py").write_text(RULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield_modules = {"echo_task", "even_rule"}
    for name in yield_modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.spec("tasks.face")
def test_a_task_and_a_rule_from_elsewhere_train_evaluate_and_trace(elsewhere: Path, capsys: Any) -> None:
    (elsewhere / "mine.toml").write_text(RECIPE.format(task="echo_task:Echo", rule="even_rule:Even"))
    assert main(["train", "mine.toml", "--out", "run"]) == 0
    assert "letters" in capsys.readouterr().out
    assert main(["eval", "run", "--sizes", "3", "--n", "10"]) == 0
    assert main(["trace", "cab", "--model", "run"]) == 0
    out = capsys.readouterr().out
    assert "cab → b (right)" in out
    assert "halt by even_rule:Even" in out


@pytest.mark.spec("tasks.face")
def test_dropped_into_the_folders_they_need_no_path(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import looplm.loop.halting
    import looplm.tasks

    for package, file in ((looplm.tasks, "echo"), (looplm.loop.halting, "even")):
        folder = elsewhere / file
        folder.mkdir()
        text = MINE + "\n\nCHOICE = Echo\n" if file == "echo" else RULE
        (folder / f"{file}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    (elsewhere / "mine.toml").write_text(RECIPE.format(task="echo", rule="even"))
    assert main(["train", "mine.toml", "--steps", "2", "--out", "run"]) == 0
    assert '"rule": "even"' in (elsewhere / "run/summary.json").read_text()
    for name in ("looplm.tasks.echo", "looplm.loop.halting.even"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.spec("tasks.refused")
@pytest.mark.parametrize("lacking", FACE)
def test_a_class_that_lacks_a_part_is_no_task(lacking: str, elsewhere: Path) -> None:
    echo_task = import_module("echo_task")

    parts = {name: getattr(echo_task.Echo, name) for name in FACE if name != lacking}
    from dataclasses import make_dataclass

    half = make_dataclass("Half", [("letters", int, 3)], namespace=parts, frozen=True)
    half.__module__ = "echo_task"
    vars(echo_task)["Half"] = half
    table = {"name": "mine", "title": "mine", "task": {"name": "echo_task:Half"}, "model": {}, "evaluation": {"sizes": [2]}}
    with pytest.raises(InputError, match=f"'echo_task:Half' is no task: it lacks `{lacking}`"):
        parse_recipe(table, where="test")


def test_a_task_is_written_as_its_table(elsewhere: Path) -> None:
    from looplm.train.recipe import load_recipe

    (elsewhere / "mine.toml").write_text(RECIPE.format(task="echo_task:Echo", rule="even_rule:Even"))
    table = as_table(load_recipe("mine.toml"))
    assert table["task"] == {"name": "echo_task:Echo", "letters": 4}
    assert as_table(parse_recipe(table, where="again")) == table
