"""`looplm ask`: what it says of an answer, of each step, and of what it does not know."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from looplm.cli import main
from looplm.errors import InputError
from looplm.models import build_model
from looplm.models.connection import Connection
from looplm.runs.checkpoint import Trained, load, save
from looplm.tasks.babi.ask import Asked, Step, ask
from looplm.tasks.stories import Stories
from looplm.train.recipe import Recipe, load_recipe

STORY = "Mary took the milk. Mary went to the kitchen."
KOREAN = "민수는 우유를 집었다. 민수는 부엌으로 갔다. 우유는 어디에 있는가?"
FEW: dict[str, Any] = {"training": {"steps": 3, "batch_size": 8}, "evaluation": {"problems_per_cell": 4}}


def untrained(name: str = "ask", changes: dict[str, Any] | None = None) -> Trained:
    recipe: Recipe = load_recipe(name, FEW | (changes or {}))
    torch.manual_seed(0)
    return Trained(build_model(recipe.model).eval(), recipe)


@pytest.fixture(scope="module")
def model() -> Trained:
    return untrained()


@pytest.fixture(scope="module")
def saved(model: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "saved"
    save(model, path)
    return path


@torch.no_grad()
@pytest.mark.spec("reasoning.ask", "sentences.looks")
@pytest.mark.parametrize("text", [f"{STORY} Where is the milk?", KOREAN])
def test_it_gives_the_models_own_answer_and_what_was_read(model: Trained, text: str) -> None:
    asked, task = ask(model, text), model.recipe.task
    tokens = torch.tensor([task.prompt(text).tokens])
    assert len(asked.steps) == model.recipe.halting.max_loops == 4
    for step, h in zip(asked.steps, model.model.states(tokens, 4), strict=True):
        chances = model.model.logits(h[0, -1]).softmax(-1)
        assert step.answer == task.answer([int(chances.argmax())])
        assert step.probability == pytest.approx(float(chances.max()), abs=1e-6)
        assert len(step.reads) == 2
        assert sum(step.reads) == pytest.approx(1, abs=1e-5)
    assert (asked.solved, asked.supporting) == (task.right(text), (0, 1))


@pytest.mark.spec("reasoning.ask")
@pytest.mark.parametrize(("answers", "since"), [("aaa", 1), ("baa", 2), ("aba", 3), ("a", 1)])
def test_an_answer_stands_from_the_first_step_after_which_it_stays(answers: str, since: int) -> None:
    asked = Asked((), "", tuple(Step(answer, 0.5, ()) for answer in answers), None, ())
    assert (asked.answer, asked.stands_from) == ("a", since)
    assert asked.as_json()["steps_taken"] == len(answers)


@pytest.mark.spec("reasoning.ask", "reasoning.refused")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Zed sang. Where is Mary?", r"no word 'zed', 'sang'; their words are: .*bathroom, .*kitchen"),
        ("하늘소는 갔다. 민수는 어디에 있는가?", r"no word '하늘소는'; their words are: .*부엌으로"),
        ("Mary went to the kitchen.", "is no story with a question; write facts"),
        ("", "is no story with a question"),
        ("Where is Mary?", "is no story with a question; write facts"),
        ("Mary went to the kitchen. " * 25 + "Where is Mary?", "reads at most 24 facts: got 25; tell it fewer"),
        ("Mary " * 13 + ". Where is Mary?", r"`model.max_words` is 12, but a sentence has 13 words"),
    ],
)
def test_what_it_does_not_know_is_refused(model: Trained, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask(model, text)


@pytest.mark.spec("reasoning.ask")
def test_a_connection_transformer_is_asked_too(tmp_path: Path) -> None:
    assert main(["stories", str(tmp_path / "qa16_train.txt"), "--count", "300"]) == 0
    trained = untrained("babi-16", {"task": {"path": str(tmp_path / "qa16_train.txt")}})
    assert isinstance(trained.model, Connection)
    asked = ask(trained, "Mary is a lion. John is a lion. John is gray. What color is Mary?")
    assert (len(asked.steps), asked.solved, asked.supporting) == (2, "gray", (0, 1, 2))
    assert all(sum(step.reads) == pytest.approx(1, abs=1e-4) for step in asked.steps)


def test_from_training_to_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ["--set", "evaluation.problems_per_cell=4", "--set", "training.batch_size=8", "--steps", "3"]
    assert main(["train", "ask", *changes, "--out", "run"]) == 0
    task = load("run").recipe.task
    assert isinstance(task, Stories)
    assert task.vocabulary.symbols[3:] == task.words == Stories().words
    assert main(["eval", "run", "--n", "3"]) == 0
    capsys.readouterr()
    assert main(["ask", STORY, "Where is the milk?", "--model", "run", "--trace"]) == 0
    out = capsys.readouterr().out
    assert "by rule: kitchen, from facts 1 and 2" in out
    assert "4 steps, the same from step" in out
    assert "*  1 mary took the milk" in out
    assert main(["ask", KOREAN, "--model", "run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["solved"], told["steps_taken"], len(told["steps"])) == ("부엌", 4, 4)


def test_a_model_that_reads_no_stories_is_refused(capsys: Any) -> None:
    assert main(["ask", STORY, "Where is Mary?", "--model", "adder"]) == 2
    assert "was trained on the task addition with the body 'looped', which reads no stories" in capsys.readouterr().err


@pytest.mark.spec("tasks.carried")
def test_a_saved_model_needs_no_file(saved: Path, model: Trained) -> None:
    again = load(saved)
    assert again.recipe.task == model.recipe.task
    assert ask(again, KOREAN) == ask(model, KOREAN)
