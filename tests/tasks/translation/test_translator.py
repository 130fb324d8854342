"""The translator that the package carries."""

import json

import torch

import looplm
from looplm.resources import asset
from looplm.tasks.translation import Translation
from looplm.think.answer import respond


def test_it_translates_pairs_that_it_has_never_seen() -> None:
    translator, task = looplm.load("translator"), Translation()
    said = [" ".join(sentence.english()) for size in (1, 2) for sentence in task.sentences("unseen", size, 20, 2026)]
    answers = respond(translator.model, task, ["I love you", *said], translator.recipe.halting)
    assert answers[0].answer == "나는 너를 사랑한다"
    assert sum(answer.answer == task.right(text) for answer, text in zip(answers[1:], said, strict=True)) >= 38


def test_it_is_small_and_was_tested_once() -> None:
    folder = asset("translator")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    (result,) = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["results"]
    assert {(cell["set"], cell["size"]) for cell in result["cells"]} == {
        (name, n) for name in ("unseen", "seen") for n in (1, 2)
    }
    assert all(cell["accuracy"] >= 0.98 for cell in result["cells"])
    assert looplm.load("translator").model.state_dict()["embedding.weight"].dtype == torch.float32
