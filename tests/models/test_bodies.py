"""A body is one file, found by its name; one from elsewhere is as good as ours."""

import sys
from pathlib import Path
from typing import Any

import pytest

from looplm.cli import main
from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.models import BODIES, FACE, build_model
from looplm.models.connection import Connection
from looplm.models.looped import LoopLM
from looplm.settings import as_table
from looplm.train.recipe import parse_recipe, read_recipe, recipe_names

MINE = '''
"""A body of someone else's: each token is read through one matrix, whatever stands before it."""

from dataclasses import dataclass

import torch
from torch import nn

from looplm.loop.halting import ByRole
from looplm.models.body import Body, Thoughts


@dataclass(frozen=True)
class Settings:
    vocab_size: int
    width: int = 8
    body: str = "my_body:Glance"

    def check(self, tokens):
        pass

    def clauses(self):
        return ()


class Glance(Body):
    settings = Settings

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.out = nn.Linear(config.width, config.vocab_size)

    @property
    def device(self):
        return self.out.weight.device

    def decayed(self):
        return [self.out.weight]

    def states(self, tokens, num_loops, start=None, noise=None):
        for _ in range(num_loops):
            yield self.embedding(tokens)

    def logits(self, h):
        return self.out(h)

    @torch.no_grad()
    def think(self, tokens, halting, *, real=None, answer=None, keep_every_loop=False, hook=None):
        loops = ByRole.of(halting).answer.max_loops
        h = torch.stack(list(self.states(tokens, loops)))
        taken = torch.full_like(tokens, loops)
        return Thoughts(h[-1], self.logits(h[-1]), taken, self.logits(h), h)
'''
RECIPE = """
[task]
name = "prefix-sums"
max_bits = 5
[model]
body = "my_body:Glance"
width = 4
[training]
steps = 3
batch_size = 4
[halting]
rule = "fixed"
max_loops = 2
[evaluation]
sizes = [3]
problems_per_cell = 5
"""


@pytest.mark.spec("architecture.body")
def test_the_files_of_the_folder_are_the_bodies() -> None:
    assert BODIES.names() == ["connection", "looped", "sentences", "seq2seq", "static"]
    assert BODIES.find("connection") is Connection
    assert BODIES.find("looped") is BODIES.find("static") is LoopLM
    assert {read_recipe(name).model.body for name in recipe_names()} == set(BODIES.names())
    for kind in BODIES:
        assert not [part for part in FACE if not hasattr(kind, part)]
    model = build_model(ModelConfig(body="static", vocab_size=5, width=4, heads=1, mlp_width=4, state_norm=False))
    assert isinstance(model, LoopLM)


@pytest.mark.spec("architecture.body")
def test_a_body_from_elsewhere_trains_and_is_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None, capsys: Any
) -> None:
    (tmp_path / "my_body.py").write_text(MINE)
    (tmp_path / "mine.toml").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_body", raising=False)
    assert main(["train", "mine.toml", "--out", "run"]) == 0
    assert main(["eval", "run", "--n", "5"]) == 0
    capsys.readouterr()
    assert main(["eval", "run", "--n", "5", "--halting", "two-equal-argmaxes"]) == 2
    assert "halts after a fixed number of loops: got 'two-equal-argmaxes'" in capsys.readouterr().err


@pytest.mark.spec("architecture.body")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"body": "lopped"}, "`model.body`: there is no body 'lopped'; did you mean looped"),
        ({"body": "looplm.models.body:State"}, "`model.body`: 'looplm.models.body:State' is no body: it lacks `settings`"),
        ({"body": "static", "slots": 3}, r"`model.slots`: unknown \(got 3\)"),
        ({"body": "connection", "layers": 3}, r"`model.layers`: unknown \(got 3\)"),
        ({"body": "connection", "end_ids": [1], "pad_id": 0, "slots": 0}, r"`model.slots`: Input should be .* \(got 0\)"),
        (7, "`model`: must be a table of settings"),
    ],
)
def test_a_body_that_is_none_and_settings_of_another_are_refused(model: Any, message: str) -> None:
    table = {"name": "a", "title": "a", "task": {"name": "prefix-sums"}, "model": model, "evaluation": {"sizes": [2]}}
    with pytest.raises(InputError, match=message):
        parse_recipe(table, where="test")


def test_settings_are_written_and_read_again() -> None:
    for name in recipe_names():
        recipe = read_recipe(name)
        assert parse_recipe(as_table(recipe), where="test", trained=True) == recipe
