"""Text in pieces: windows of documents, a loss a character, and a run that keeps its tokenizer."""

import json
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from korean_text import korean, tokenizer

import looplm
from looplm.cli import main
from looplm.config import ModelConfig
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.evaluate.scores import exact_match, make_cell
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.runs.checkpoint import read_card, read_manifested, write_manifested
from looplm.spec import oracle
from looplm.tasks.language import BEGIN, Language, collate
from looplm.think import generate
from looplm.train.recipe import load_recipe

spec = oracle("korean")
SIZE = 1500
TINY = ["model.vocab_size=1500", "task.context=16", "model.width=16", "model.mlp_width=16", "model.heads=2", "model.kv_heads=1"]
TINY += ["model.layers=1", "training.validate_every=0", "evaluation.sizes=[8,12]", "evaluation.problems_per_cell=3"]
SET = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a text and its tokenizer, which is the current one."""
    (tmp_path / "text.txt").write_text(korean(), encoding="utf-8")
    (tmp_path / "ko-text.model").write_bytes(tokenizer(SIZE).model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def task(tmp_path_factory: Any) -> Language:
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text(korean(), encoding="utf-8")
    (folder / "any.model").write_bytes(tokenizer(SIZE).model)
    return Language(path=str(folder / "text.txt"), tokenizer=str(folder / "any.model"), context=16)


@pytest.mark.spec("korean.pieces", "korean.held-out-documents")
def test_documents_follow_each_other_and_their_sides_are_apart(task: Language) -> None:
    made = tokenizer(SIZE)
    for ids, documents in zip(task.parts(), spec.parts(korean(), 0.1), strict=True):
        assert ids.tolist() == spec.stream([made.encode(document) for document in documents], made.end)
        assert len(documents) > 0


@pytest.mark.spec("korean.pieces")
def test_a_text_without_form_feeds_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "any.model").write_bytes(tokenizer(SIZE).model)
    text = korean().replace("\f", "")
    (tmp_path / "text").write_text(text, encoding="utf-8")
    made, task = tokenizer(SIZE), Language(path=str(tmp_path / "text"), tokenizer=str(tmp_path / "any.model"))
    (trained,), (held_out,) = spec.parts(text, 0.1)
    assert [part.tolist() for part in task.parts()] == [made.encode(trained), made.encode(held_out)]


@pytest.mark.spec("korean.pieces", "tasks.windows")
@given(st.integers(0, 9))
def test_windows_are_of_pieces(task: Language, seed: int) -> None:
    trained, held_out = (part.tolist() for part in task.parts())
    for text, batch in (
        (trained, task.batch(range(4), Draw(seed, "problems"))),
        (held_out, task.suite("held-out", 5, 4, seed)),
    ):
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            assert (tokens, targets) == spec.row(targets, tokenizer(SIZE).begin)
            assert any(text[at : at + len(targets)] == targets for at in range(len(text)))


@pytest.mark.spec("korean.document-rows", "tasks.rows")
@given(st.integers(0, 9), st.integers(2, 400))
def test_rows_are_documents(task: Language, seed: int, size: int) -> None:
    made = tokenizer(SIZE)
    task = Language(path=task.path, tokenizer=task.tokenizer, context=size, rows="documents")
    assert task.vocabulary.stop == made.end
    assert task.opening == [made.begin]
    sides = [[made.encode(document) for document in part] for part in spec.parts(korean(), 0.1)]
    batches = task.batch(range(4), Draw(seed, "problems")), task.suite("held-out", size, 4, seed)
    for documents, batch in zip(sides, batches, strict=True):
        expected = [spec.document_row(document, made.begin, made.end, size) for document in documents]
        for row in range(4):
            real = batch.real[row]
            found = batch.tokens[row][real].tolist(), batch.targets[row][real].tolist()
            assert found in expected
            assert batch.scored[row].equal(real)
            assert (batch.tokens[row][~real] == made.begin).all()
            assert not (~real[:-1] & real[1:]).any(), "padding stands on the right"
    whole, part = task.batch(range(4), Draw(seed, "problems")), task.batch(range(2, 4), Draw(seed, "problems"))
    width = part.tokens.shape[1]
    assert part.tokens.equal(whole.tokens[2:, :width])


@pytest.mark.spec("korean.document-rows")
def test_documents_are_drawn_evenly(task: Language) -> None:
    task = Language(path=task.path, tokenizer=task.tokenizer, context=4, rows="documents")
    begins = {tuple(tokenizer(SIZE).encode(document)[:4]) for document in spec.parts(korean(), 0.1)[0]}
    drawn = {tuple(row) for step in range(40) for row in task.batch(range(8), Draw(step, "problems")).targets.tolist()}
    assert drawn == begins


@pytest.mark.spec("korean.document-rows")
def test_rows_of_documents_need_their_ends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a `tokenizer`"):
        Language(rows="documents")
    (tmp_path / "any.model").write_bytes(tokenizer(SIZE).model)
    (tmp_path / "text").write_text(korean().replace("\f", ""), encoding="utf-8")
    task = Language(path=str(tmp_path / "text"), tokenizer=str(tmp_path / "any.model"), rows="documents")
    with pytest.raises(InputError, match="has no form feed that ends a document"):
        task.batch(range(2), Draw(0, "problems"))


@pytest.mark.spec("korean.pieces")
@given(st.text())
def test_a_prompt_is_in_nfc_and_comes_back(task: Language, text: str) -> None:
    prompt = task.prompt(text)
    assert prompt.tokens[0] == tokenizer(SIZE).begin
    assert task.answer(prompt.tokens) == task.whole(prompt.tokens) == unicodedata.normalize("NFC", text)


@pytest.mark.spec("korean.bits-per-character")
@given(st.integers(0, 99), st.booleans())
def test_bits_per_character_are_those_of_the_spec(task: Language, seed: int, in_bytes: bool) -> None:
    if in_bytes:
        task = Language()
        window = torch.randint(0, 256, (3, 9), generator=torch.Generator().manual_seed(seed))
        problems = collate(window.masked_fill(window == 0x1B, 0), BEGIN)  # which stands for itself in bytes
        contents = [bytes([byte]) for byte in range(256)]
    else:
        problems = task.suite("held-out", 9, 3, seed)
        made = tokenizer(SIZE)
        contents = [b"\f" if id == made.end else content for id, content in enumerate(made.contents)]
    torch.manual_seed(0)
    model = build_model(ModelConfig(vocab_size=len(task.vocabulary), width=8, heads=2, mlp_width=8)).eval()
    attempts = exact_match(model, problems, Fixed(1), with_loss=True, characters=task.vocabulary.characters)
    right = model.think(problems.tokens, Fixed(1)).logits.double().softmax(-1)
    probabilities = right.gather(-1, problems.targets[..., None]).flatten().tolist()
    wanted = spec.bits_per_character(probabilities, [contents[id] for id in problems.targets.flatten().tolist()])
    assert make_cell("held-out", 9, attempts).bits_per_character == pytest.approx(wanted, rel=1e-4)
    assert make_cell("held-out", 9, exact_match(model, problems, Fixed(1), with_loss=True)).bits_per_character is None


@pytest.mark.spec("tasks.carried", "korean.bits-per-character", "korean.whole-characters")
def test_a_run_keeps_its_tokenizer_and_goes_on_without_the_file(place: Path, capsys: Any) -> None:
    train = ["train", "ko-text", "--data", "text.txt", "--steps", "2", *SET]
    assert main([*train, "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert "Bits per character, lower is better" in out
    first = json.loads(Path("run/summary.json").read_text())["results"][0]
    assert first["axis"] == "pieces"
    assert f"{first['cells'][0]['bits_per_character']:.3f}" in out
    assert first["provenance"]["carried"]["tokenizer"]["sha256"] == tokenizer(SIZE).sha256
    assert read_card("run")["recipe"]["task"]["tokenizer"] == "tokenizer.model", "no path of the machine"
    assert Path("run/checkpoint/tokenizer.model").read_bytes() == tokenizer(SIZE).model
    assert main(["ngram", "run", "--order", "3", "--out", "floor.json"]) == 0
    assert "3-gram" in capsys.readouterr().out
    summary = json.loads(Path("floor.json").read_text())
    assert summary["results"] == [first]
    assert [cell["size"] for cell in summary["ngram"]["cells"]] == [8, 12]
    assert main(["report", "floor.json"]) == 0
    capsys.readouterr()
    Path("ko-text.model").unlink()
    Path("text.txt").unlink()
    shutil.copytree("run/checkpoint", "elsewhere")
    for model in ("run", "elsewhere"):
        assert main(["generate", model, "옛날에 뷁", "--max-new-tokens", "20", "--temperature", "1"]) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("옛날에 뷁")
        assert "\ufffd" not in captured.out
    assert "grows beyond the 16 pieces" in captured.err
    assert main(["trace", "옛날에", "--model", "elsewhere", "--figure", "seen.svg"]) == 0
    again = Path("again")
    looplm.save(looplm.load(Path("elsewhere")), again)
    assert (again / "tokenizer.model").read_bytes() == tokenizer(SIZE).model
    (again / "tokenizer.model").write_bytes(tokenizer(SIZE + 1).model)
    with pytest.raises(InputError, match=r"tokenizer\.model is damaged"):
        looplm.load(again)
    (again / "tokenizer.model").unlink()
    with pytest.raises(InputError, match=r"lacks tokenizer\.model"):
        looplm.load(again)


@pytest.mark.spec("korean.document-rows", "tasks.carried")
def test_a_model_of_documents_ends_them_and_needs_no_text(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", "ko-tiny", "--data", "text.txt", "--steps", "2", *SET, "--set", "model.attention_init=copy"]
    train += ["--set", "task.tokenizer=ko-text.model", "--set", "task.held_out_share=0.1"]
    assert main([*train, "--out", "run"]) == 0
    assert main(["ngram", "run", "--order", "2"]) == 0
    trained = looplm.load("run")
    assert isinstance(trained.recipe.task, Language)
    contents = read_manifested(Path("run/checkpoint"))
    card = json.loads(contents["model.json"])
    card["recipe"]["task"]["path"] = ""
    write_manifested(Path("shipped"), contents | {"model.json": json.dumps(card).encode()})
    for name in ("text.txt", "ko-text.model"):
        Path(name).unlink()
    shutil.rmtree("run")
    assert looplm.load("shipped").recipe.task == replace(trained.recipe.task, path="", tokenizer="shipped/tokenizer.model")
    ends: list[int] = []

    def stream(*arguments: Any, stop_token: int, **more: Any) -> Any:
        ends.append(stop_token)
        return plainly(*arguments, stop_token=stop_token, **more)

    plainly = generate.stream
    monkeypatch.setattr(generate, "stream", stream)
    capsys.readouterr()
    assert main(["generate", "shipped", "옛날에", "--temperature", "0.8", "--top-p", "0.95"]) == 0
    assert capsys.readouterr().out.startswith("옛날에")
    assert ends == [tokenizer(SIZE).end]


@pytest.mark.spec("tasks.carried")
def test_a_checkpoint_with_another_tokenizer_is_refused(place: Path) -> None:
    from looplm.runs.checkpoint import save

    recipe = load_recipe("ko-text", {"task": {"path": "text.txt", "context": 16}, "model": {"vocab_size": SIZE, "layers": 1}})
    model = build_model(recipe.model)
    save(looplm.Trained(model, recipe, {"seed": 0, "training": {}}), "whole")
    contents = read_manifested(Path("whole"))
    write_manifested(Path("whole"), contents | {"tokenizer.model": tokenizer(SIZE + 1).model})
    with pytest.raises(InputError, match=r"`model\.vocab_size` is 1500, but the task has 1501 tokens"):
        looplm.load(Path("whole"))
    del contents["tokenizer.model"]
    write_manifested(Path("whole"), contents)
    with pytest.raises(InputError, match=r"lacks tokenizer\.model"):
        looplm.load(Path("whole"))


@pytest.mark.spec("tasks.carried")
def test_a_run_is_not_gone_on_with_when_its_tokenizer_changed(
    place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", "ko-text", "--data", "text.txt", "--steps", "3", *SET, "--checkpoint-every", "1", "--out", "run"]

    def stop(*_: Any) -> None:
        raise MemoryError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr("looplm.runs.run._Stages.test", stop)
        assert main(train) == 2
    capsys.readouterr()
    text = korean().split("\f")
    from looplm.tasks.language.tokenizer import train_tokenizer

    Path("ko-text.model").write_bytes(train_tokenizer(text[:-1], SIZE).model)
    assert main([*train, "--resume"]) == 2
    assert "the files that go with the model, tokenizer, have changed" in capsys.readouterr().err
    Path("ko-text.model").write_bytes(tokenizer(SIZE).model)
    assert main([*train, "--resume"]) == 0


@pytest.mark.spec("training.refused-before-step-one")
def test_what_does_not_fit_is_refused_in_one_line(place: Path, capsys: Any) -> None:
    def refused(*arguments: str) -> str:
        assert main(["train", "ko-text", "--data", "text.txt", "--out", "nowhere", *SET, *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not Path("nowhere").exists()
        return str(line)

    assert "`model.vocab_size` is 4000, but the task has 1500 tokens; leave it out, or set that" in refused(
        "--set", "model.vocab_size=4000"
    )
    assert "nosuch does not exist; give a tokenizer that `looplm tokenizer train" in refused("--set", "task.tokenizer=nosuch")
    Path("short").write_text("가나다 " * 20, encoding="utf-8")
    assert "short is too short: a window has 64 pieces" in refused("--data", "short", "--set", "task.context=64")
    Path("old").write_text("옛날에 " * 20, encoding="cp949")
    assert "old is in CP949, not in UTF-8" in refused("--data", "old")
    assert main(["ngram"]) == 2
    assert "no run was given" in capsys.readouterr().err
    assert main(["ngram", "missing"]) == 2
    assert main(["ngram", "missing", "--order", "9"]) == 2
    assert "from 1 to 8" in capsys.readouterr().err


def test_a_recipe_is_planned_before_there_is_a_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "ko-text", "--profile", "m4max"]) == 0
    capsys.readouterr()
    Path("mine.toml").write_text('extends = "text"\n[task]\ntokenizer = "nosuch.model"\n')
    assert main(["plan", "mine.toml", "--profile", "m4max"]) == 2
    assert "nosuch.model does not exist; give a tokenizer" in capsys.readouterr().err
