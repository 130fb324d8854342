"""What is measured of an untrained encoder-decoder: the same numbers as in the committed file, and those that are known."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from looplm.cli import main
from looplm.lab.transformer_start import Start, WithoutNorms, WithoutSums, measure, pieces

ROOT = Path(__file__).parents[2]
PARTS = ("attention", "loss", "gradient", "distance", "adam", "pieces")
TINY = Start(seeds=2, vocab_size=50, width=16, heads=2, layers=6, deep=8, mlp_width=32, rows=4, steps=200)


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    return measure(TINY, lambda told: None)


def test_the_committed_numbers_are_of_the_same_kind(tiny: dict[str, Any]) -> None:
    kept = json.loads((ROOT / "docs/data/transformer-start.json").read_bytes())
    assert set(kept) == set(tiny)
    assert kept["sizes"] == {**kept["sizes"], "vocab_size": 37_000, "width": 512, "layers": 6, "heads": 8, "seeds": 5}
    assert not kept["commit"].endswith("+changes")
    for part in PARTS:
        assert set(kept[part]) == set(tiny[part])
        assert all(math.isfinite(value) for value in kept[part].values())


def test_what_is_known_is_found(tiny: dict[str, Any]) -> None:
    assert tiny["gradient"]["post_layer_6"] == 1
    assert tiny["loss"]["even"] == pytest.approx(math.log(50), rel=1e-5)
    assert tiny["adam"]["first"] == pytest.approx(math.sqrt(2), rel=0.1)  # of the square of a normal number
    assert tiny["adam"]["last"] == pytest.approx(math.sqrt(2 * 0.02 / 1.98), rel=0.1)
    assert 0 < tiny["attention"]["entropy_share"] < 1
    counts = [tiny["pieces"][f"depth_{2**n}"] for n in range(6)]
    assert counts == sorted(counts)


def test_the_same_seed_gives_the_same_numbers(tiny: dict[str, Any]) -> None:
    assert measure(TINY, lambda told: None) == tiny
    assert pieces(TINY, 0) == pieces(TINY, 0) != pieces(TINY, 1)


def test_layers_without_sums_or_norms_are_that() -> None:
    x, seen = torch.randn(1, 3, 16), torch.ones(1, 3, 3, dtype=torch.bool)
    (sums, *_), (norms, *_) = TINY.model(0, 1, WithoutSums).encoder, TINY.model(0, 1, WithoutNorms).encoder
    torch.testing.assert_close(sums(x, seen).mean(-1), torch.zeros(1, 3), atol=1e-5, rtol=0)
    assert isinstance(norms, WithoutNorms)
    read = x + norms.attention(x, x, seen)
    torch.testing.assert_close(norms(x, seen), read + norms.mlp(read))


def test_seeds_beyond_their_bounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "transformer-start", "--seeds", "0"]) == 2
    assert "`seeds`" in capsys.readouterr().err
