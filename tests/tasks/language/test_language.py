"""Text: every byte comes back, nothing that is held out is trained on, and the loss is what the spec says."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import models

from looplm.cli import main
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.evaluate.scores import evaluate, exact_match
from looplm.loop.halting.fixed import Fixed
from looplm.models.looped import LoopLM
from looplm.settings import as_table
from looplm.spec import oracle
from looplm.task import Batch
from looplm.tasks.language import BEGIN, Language, as_bytes, collate, whole_characters, windows
from looplm.train.recipe import load_recipe

spec = oracle("tasks")
TEXT = "In the beginning was the word. 태초에 말씀이 계시니라. [/b] $x$ :smile: " * 9
TINY: tuple[str, ...] = (
    "--set",
    "task.context=16",
    "--set",
    "model.width=16",
    "--set",
    "model.mlp_width=16",
    "--set",
    "evaluation.sizes=[8]",
)
TINY += ("--set", "evaluation.problems_per_cell=3")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.spec("tasks.bytes")
@given(st.binary(max_size=60))
@example(bytes(range(256)))
def test_every_byte_comes_back(content: bytes) -> None:
    import numpy as np

    whole = windows(np.frombuffer(content, dtype=np.uint8), torch.zeros(1, dtype=torch.int64), len(content))
    assert whole[0].tolist() == list(content)
    assert as_bytes([BEGIN, *whole[0].tolist(), BEGIN]) == content
    assert len(Language().vocabulary) == BEGIN + 1
    assert Language().vocabulary.stop is None


@pytest.mark.spec("tasks.bytes")
@given(st.text())
def test_every_question_comes_back(text: str) -> None:
    prompt = Language().prompt(text)
    assert prompt.tokens[0] == BEGIN
    assert Language().answer(prompt.tokens) == text
    assert Language().right(text) is None


def test_half_a_character_is_no_text_and_is_not_printed() -> None:
    with pytest.raises(InputError, match="half a character"):
        Language().prompt("a\ud800")
    assert Language().prompt("a\udcff").tokens == [BEGIN, ord("a"), 0xFF], "a byte of the command line that is no UTF-8"
    assert whole_characters()("가나".encode()[:-1]) == "가"
    assert whole_characters()(b"a\xffb") == "a\ufffdb"
    text = whole_characters()
    assert [text(bytes([byte])) for byte in "가b".encode()] == ["", "", "가", "b"]
    assert Language().answer("가".encode()[:2]) == "\ufffd"


@pytest.mark.spec("tasks.windows", "tasks.text-held-out", "tasks.held-out")
@given(content=st.binary(min_size=40, max_size=90), share=st.sampled_from([0.1, 0.25, 0.5]), seed=st.integers(0, 9))
def test_training_windows_never_reach_into_what_is_held_out(
    content: bytes, share: float, seed: int, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("text") / "any"
    path.write_bytes(content)
    task = Language(path=str(path), context=15, held_out_share=share)
    trained = spec.training_part(content, share)
    places = {trained[at : at + 15] for at in range(len(trained) - 14)}
    drawn = task.batch(range(60), Draw(seed, "problems"))
    assert bool(drawn.scored.all())
    for tokens, targets in zip(drawn.tokens.tolist(), drawn.targets.tolist(), strict=True):
        assert bytes(targets) in places
        assert spec.row(bytes(targets)) == (tokens, targets)
    held_out = content[len(trained) :]
    size = min(4, len(held_out))
    inside = {held_out[at : at + size] for at in range(len(held_out) - size + 1)}
    assert {bytes(row) for row in task.suite("held-out", size, 30, seed).targets.tolist()} <= inside


@pytest.mark.spec("tasks.windows")
def test_windows_are_drawn_from_every_place(tmp_path: Path) -> None:
    (tmp_path / "any").write_bytes(bytes(range(100)))
    task = Language(path=str(tmp_path / "any"), context=80)
    starts = task.batch(range(3000), Draw(0, "problems")).targets[:, 0].bincount(minlength=12)
    assert starts[11:].sum() == 0
    assert starts[:11].min() > 3000 / 11 * 0.7


@pytest.mark.spec("tasks.nats-per-token")
@given(models(vocab_size=257, positions="rope"), st.integers(0, 99))
def test_the_loss_is_that_of_the_states_at_which_tokens_halt(model: LoopLM, seed: int) -> None:
    window = torch.randint(0, 256, (3, 5), generator=torch.Generator().manual_seed(seed))
    problems, rule = collate(window), Fixed(2)
    attempts = exact_match(model, problems, rule, with_loss=True)
    right = model.think(problems.tokens, rule).logits.double().softmax(-1).gather(-1, window[..., None])[..., 0]
    assert attempts.nats is not None
    for row, nats in enumerate(attempts.nats.tolist()):
        assert nats == pytest.approx(spec.nats_per_token(right[row].tolist()), rel=1e-4)
    assert exact_match(model, problems, rule).nats is None


def test_only_scored_tokens_count() -> None:
    torch.manual_seed(0)
    model = LoopLM(load_recipe("first-light").model).eval()
    tokens = torch.randint(0, 15, (2, 6))
    scored = torch.zeros(2, 6, dtype=torch.bool)
    scored[:, 3] = True
    one = exact_match(model, Batch(tokens, tokens, scored, torch.ones_like(scored)), Fixed(2), with_loss=True)
    right = model(tokens, 2)[-1].log_softmax(-1)[:, 3].gather(-1, tokens[:, 3:4])[:, 0]
    torch.testing.assert_close(one.nats, -right)


def test_a_recipe_knows_the_file_by_its_path_alone(text: Path) -> None:
    recipe = load_recipe("text", {"task": {"path": str(text), "context": 16}, "evaluation": {"sizes": [8]}})
    assert as_table(recipe)["task"] == {
        "name": "language",
        "path": str(text),
        "context": 16,
        "rows": "windows",
        "held_out_share": 0.1,
    }
    assert "태초" not in json.dumps(as_table(recipe), ensure_ascii=False)
    (cell,) = evaluate(LoopLM(recipe.model).eval(), recipe.task, [8], 4, recipe.halting, 0)
    assert 0 < (cell.nats_per_token or 0) < 9


def test_a_task_stays_with_the_text_that_it_first_read(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Language(path=str(text), context=16)
    first, table = task.batch(range(3), Draw(0, "problems")), as_table(task)
    text.write_bytes(b"x" * 400)
    assert torch.equal(task.batch(range(3), Draw(0, "problems")).targets, first.targets)
    again = Language(path=str(text), context=16)
    assert set(again.batch(range(3), Draw(0, "problems")).targets.flatten().tolist()) == {ord("x")}
    assert task == again
    assert table == as_table(again) == {"path": str(text), "context": 16, "rows": "windows", "held_out_share": 0.1}
    assert pickle.loads(pickle.dumps(task)) == task
    monkeypatch.setattr("looplm.tasks.language._KEPT_BYTES", 10)  # a large file is mapped, not kept
    text.write_bytes(b"y" * 500)
    mapped = Language(path=str(text), context=16).batch(range(3), Draw(0, "problems"))
    assert set(mapped.targets.flatten().tolist()) == {ord("y")}


def refused(arguments: list[str], capsys: Any) -> str:
    assert main(["train", "text", "--out", "nowhere", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not Path("nowhere").exists()
    return str(line)


@pytest.mark.spec("training.refused-before-step-one")
def test_what_is_no_text_is_refused_in_one_line(
    text: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    Path("short").write_text("a" * 100)
    assert "reads a text file: give one with --data FILE" in refused([], capsys)
    assert "nosuch does not exist; give a text file" in refused(["--data", "nosuch"], capsys)
    assert "is a folder; give a text file" in refused(["--data", "."], capsys)
    assert "empty is empty" in refused(["--data", "empty"], capsys)
    assert "short is too short: a window has 128 bytes, and 90 of its 100 are for training" in refused(
        ["--data", "short"], capsys
    )
    with pytest.raises(InputError, match="there is no test set 'all'"):
        Language(path=str(text)).suite("all", 4, 1, 0)
    with pytest.raises(InputError, match=r"windows have 1 to \d+ bytes"):
        Language(path=str(text)).suite("held-out", 4000, 1, 0)

    def locked(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", locked)
    Path("locked").write_text("secret")
    assert "locked cannot be read: Permission denied" in refused(["--data", "locked"], capsys)


@pytest.mark.spec("tasks.face", "tasks.nats-per-token")
def test_a_text_trains_through_all_stages_and_is_gone_on_with(
    text: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "text", "--data", "text.txt", "--steps", "2", "--out", "run", *TINY]) == 0
    out = capsys.readouterr().out
    assert "Bits per byte, lower is better" in out
    assert "Problems solved" not in out
    (cell,) = json.loads(Path("run/summary.json").read_text())["results"][0]["cells"]
    bits = f"{spec.log(2) ** -1 * cell['nats_per_token']:.3f}"
    assert bits in out
    assert f"| 8 | {bits} |" in Path("run/report.md").read_text()
    assert main(["report", "run", "--markdown"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    text.unlink()  # the model goes on without its text
    for begin in ("태초에 [/b] $", ""):
        assert main(["generate", "run", begin, "--max-new-tokens", "9", "--max-loops", "3"]) == 0
        first = capsys.readouterr().out
        assert first.startswith(begin)
        assert main(["generate", "run", begin, "--max-new-tokens", "9", "--max-loops", "3"]) == 0
        assert capsys.readouterr().out == first
    drawn, two = [], ["--halting", "confidence", "--threshold", "1", "--max-loops", "2"]
    for seed in ("1", "1", "2"):
        assert main(["generate", "run", "태초", "--max-new-tokens", "30", "--temperature", "1", "--seed", seed, *two]) == 0
        captured = capsys.readouterr()
        drawn.append(captured.out)
        assert "loops ran out on 30 of 30 bytes (halting.ran-out)." in captured.err
    assert drawn[0] == drawn[1] != drawn[2]
    assert main(["generate", "run", "태초", "--max-new-tokens", "30", "--temperature", "1", "--seed", "1", *two]) == 0
    whole = capsys.readouterr().out.removesuffix("\n")
    stop = whole[-3:]
    again = ["generate", "--stop", stop, "run", "태초", "--max-new-tokens", "30", "--temperature", "1", "--seed", "1", *two]
    assert main([*again, "--stop", "no such"]) == 0
    assert capsys.readouterr().out == whole[: whole.index(stop, len("태초"))] + "\n"
    assert main(["generate", "run", "a", "--max-seconds", "1e-9"]) == 0
    assert "time was up after 1 of 200 bytes (generation.max-seconds)." in capsys.readouterr().err
    assert main(["generate", "run", "--temperature", "-1"]) == 2
    assert "`temperature`: Input should be greater than or equal to 0 (got -1.0)" in capsys.readouterr().err
    assert main(["trace", "태초\t$x$ [/b]", "--model", "run", "--figure", "seen.svg"]) == 0
    assert "태초 $x$ [/b] → " in capsys.readouterr().out
    assert main(["eval", "run"]) == 2  # its test set is in the text
    assert "text.txt does not exist" in capsys.readouterr().err
    assert main(["generate", "run", "--max-new-tokens", "0"]) == 2
    assert main(["generate", "adder", "1"]) == 2
    assert "was trained on the task addition" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["generate"])
