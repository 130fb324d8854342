"""What is said of a head is what it reads and what is lost without it; a trace is what the model computes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from looplm.cli import main
from looplm.errors import InputError
from looplm.models import build_model
from looplm.models.seq2seq import Seq2Seq
from looplm.runs.checkpoint import Trained, load, save
from looplm.tasks.translation import Translation, collate
from looplm.tasks.translation.alignment import ROLES
from looplm.tasks.translation.choosing import WAYS
from looplm.tasks.translation.grammar import parse
from looplm.tasks.translation.heads import (
    Head,
    Relation,
    _shares,
    attention_of,
    heads_of,
    measure_heads,
    relations_of,
    removed,
)
from looplm.tasks.translation.written import CANDIDATES, written
from looplm.train.recipe import read_recipe


def small(loops: int = 1) -> Trained:
    recipe = read_recipe(
        "grammar", {"model": {"width": 16, "heads": 2, "layers": 1, "mlp_width": 16}, "halting": {"max_loops": loops}}
    )
    torch.manual_seed(0)
    return Trained(build_model(recipe.model).eval(), recipe, {"seed": 0, "preset": "grammar", "commit": "none", "training": {}})


def body(trained: Trained) -> Seq2Seq:
    assert isinstance(trained.model, Seq2Seq)
    return trained.model


@pytest.mark.spec("translation.heads")
def test_the_pairs_of_a_sentence_are_those_that_a_reader_would_name() -> None:
    relations = {(each.kind, each.name): each for each in relations_of([parse("I love you")])}

    def pairs(kind: str, name: str) -> list[tuple[int, int]]:
        found = relations[kind, name]
        return list(zip(found.asks.tolist(), found.answers.tolist(), strict=True))

    assert pairs("encoder", "verb to its object") == [(2, 3)]
    assert pairs("encoder", "verb to its subject") == [(2, 1)]
    assert pairs("encoder", "object to its verb") == [(3, 2)]
    assert pairs("cross", "noun") == [(0, 1), (3, 3)]  # 나는 너를 사랑한다, asked one syllable before each
    assert pairs("cross", "particle") == [(1, 1), (4, 3)]
    assert pairs("cross", "stem") == [(6, 2), (7, 2), (8, 2)]
    assert pairs("cross", "ending") == [(9, 0)]
    assert pairs("decoder", "syllable before") == [(n, n - 1) for n in range(1, 10)]
    assert pairs("decoder", "particle to its noun") == [(1, 1), (4, 4)]
    assert ("encoder", "adjective to its noun") not in relations


@pytest.mark.spec("translation.heads")
@pytest.mark.parametrize("loops", [1, 2])
def test_what_is_kept_is_what_the_pass_reads(loops: int) -> None:
    model = body(small(loops))
    tokens = collate(Translation().sentences("unseen", 2, 4, 0)).tokens
    *_, plain = model.states(tokens, loops)
    with attention_of(model) as seen:
        *_, h = model.states(tokens, loops)
    assert torch.equal(h, plain)
    assert {key: len(kept) for key, kept in seen.items()} == {("encoder", 0): 1, ("decoder", 0): loops, ("cross", 0): loops}
    for kept in seen.values():
        for read in kept:
            torch.testing.assert_close(read.sum(-1), torch.ones(read.shape[:-1]))
    *_, again = model.states(tokens, loops)
    assert torch.equal(again, plain), "nothing stays behind"


@pytest.mark.spec("translation.heads")
def test_without_all_its_heads_an_attention_adds_nothing() -> None:
    model = body(small())
    tokens = collate(Translation().sentences("unseen", 2, 4, 0)).tokens
    heads = [head for head in heads_of(model) if head.kind == "cross"]
    assert heads == [Head("cross", 0, 0), Head("cross", 0, 1)]
    given: list[torch.Tensor] = []
    attention: Any = model.decoder[0].cross
    attention.register_forward_hook(lambda module, args, output: given.append(output))
    with removed(model, heads[0]), removed(model, heads[1]):
        *_, h = model.states(tokens, 1)
    assert not given[0].any()
    with removed(model, heads[0]):
        *_, one = model.states(tokens, 1)
    assert not torch.equal(one, h)


@pytest.mark.spec("translation.heads")
def test_a_head_that_reads_the_answer_has_all_and_its_control_what_others_have() -> None:
    """Three sentences with answers at places 1, 2 and 0; the control of each is the next one's."""
    relation = Relation("cross", "noun", *torch.tensor([(0, 0, 1), (1, 0, 2), (2, 0, 0)]).T)
    read = torch.zeros(3, 1, 1, 3)
    read[torch.arange(3), 0, 0, relation.answers] = 1
    (own,) = _shares(relation, {("cross", 0): [read], ("decoder", 0): [read]}, torch.tensor([1, 2, 0]))
    assert own == {"layer": 0, "loop": 0, "head": 0, "share": 1.0, "shuffled": 0.0}
    (same,) = _shares(relation, {("cross", 0): [read]}, torch.tensor([0, 1, 2]))
    assert same["shuffled"] == 1.0


def test_all_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(small(), tmp_path / "run")
    out = tmp_path / "heads.json"
    assert main(["heads", str(tmp_path / "run"), "--out", str(out), "--n", "6"]) == 0
    assert "verb to its object" in capsys.readouterr().out
    (made,) = json.loads(out.read_text())["runs"]
    assert made["run"] == {"preset": "grammar", "seed": 0, "commit": "none"}
    assert made == {"run": made["run"], **measure_heads(load(tmp_path / "run"), 6, 21)}
    assert {relation["kind"] for relation in made["relations"]} == {"encoder", "decoder", "cross"}
    assert len(made["without"]) == 1 + 6
    assert set(made["without"][0]["wrong"]) <= set(ROLES)
    assert main(["heads", str(tmp_path / "run"), "--out", str(out), "--n", "6"]) == 2


def test_another_body_has_no_such_heads() -> None:
    with pytest.raises(InputError, match="heads are read of an encoder-decoder of the task translation: got a LoopLM"):
        measure_heads(load("adder"), 2, 0)


def test_the_syllables_are_the_answer_and_the_likeliest() -> None:
    trained = small()
    made = written(trained, "polite I love you")
    said = [syllable["candidates"][0]["said"] for syllable in made["syllables"]]
    assert "".join(said).removesuffix("<end>") == made["answer"]
    assert made["english"] == ["polite", "I", "love", "you", "<to>"]
    assert made["right"] == "저는 당신을 사랑해요"
    for syllable in made["syllables"]:
        shares = [each["share"] for each in syllable["candidates"]]
        assert len(shares) == CANDIDATES
        assert shares == sorted(shares, reverse=True)
        attention = torch.tensor(syllable["attention"])
        assert attention.shape == (2, 5)
        # five shares of four decimals each
        torch.testing.assert_close(attention.sum(-1), torch.ones(2), atol=5 * 0.5e-4 + 1e-6, rtol=0)
        assert syllable["reads"]["share"] == pytest.approx(
            float(attention.mean(0).max()), abs=1.01e-4
        )  # both rounded to four decimals


def test_the_command_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(small(), tmp_path / "run")
    where = ["--model", str(tmp_path / "run")]
    assert main(["translate", "I love you", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == written(load(tmp_path / "run"), "I love you")
    assert main(["translate", "I love you", *where, "--trace"]) == 0
    said = capsys.readouterr()
    assert "reads most" in said.out
    assert "the grammar has: 나는 너를 사랑한다" in said.err


def test_every_way_of_choosing_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(small(), tmp_path / "run")
    out = tmp_path / "choosing.json"
    assert main(["choosing", str(tmp_path / "run"), "--out", str(out), "--n", "3", "--draws", "2"]) == 0
    made = json.loads(out.read_text())
    assert [way["name"] for way in made["ways"]] == [way.name for way in WAYS]
    for way, counted in zip(WAYS, made["ways"], strict=True):
        assert counted["draws"] == (2 if way.draws else 1)
        assert counted["n"] == 3 * counted["draws"]
        assert 0 <= counted["right"] <= counted["n"]
        assert 1 <= counted["distinct"] <= counted["draws"]
        assert counted["log_probability"] < 0
    assert made["differ"]["count"] >= len(made["differ"]["examples"])
    assert main(["choosing", "adder", "--out", str(tmp_path / "other.json")]) == 2
    assert "translations are chosen by a model of the task translation: got one of addition" in capsys.readouterr().err
