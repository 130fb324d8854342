"""Position schemes, each alone, and what a token sees."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.config import ModelConfig
from looplm.layers.attention import attention_view
from looplm.layers.positions import PlacePositions, RotaryPositions, make_positions, places_in_runs
from looplm.spec import oracle

architecture = oracle("architecture")


def config(positions: str, **more: object) -> ModelConfig:
    return ModelConfig(vocab_size=15, width=8, heads=2, mlp_width=8, positions=positions, **more)  # type: ignore[arg-type]


@pytest.mark.spec("architecture.seen", "architecture.positions", "architecture.causal")
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_a_token_sees_itself_and_the_real_tokens_before_it(real: list[bool], data: st.DataObject) -> None:
    at = data.draw(st.lists(st.integers(0, len(real) - 1), min_size=1, max_size=4))
    tokens = torch.zeros(1, len(real), dtype=torch.int64)
    index, view = attention_view(
        make_positions(config("rope")), tokens, torch.tensor([real]), torch.tensor([at]), torch.float64
    )
    for t, query in enumerate(at):
        seen = [architecture.seen(query, key, real[key]) for key in range(len(real))]
        assert view.scores[0, 0, t].tolist() == [0 if sees else -math.inf for sees in seen]
        if real[query]:
            assert index[0, t] == architecture.positions(real)[query]


@pytest.mark.spec("architecture.place")
@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4))
def test_places_match_the_spec(rows: list[list[bool]]) -> None:
    assert places_in_runs(torch.tensor(rows), torch.ones(len(rows), 7, dtype=torch.bool)).tolist() == [
        architecture.places(row) for row in rows
    ]


def dense(scheme: PlacePositions, tokens: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Scores over all columns, -inf for what is not seen: [B, H, T, S]."""
    bias = scheme.bias(tokens, torch.ones_like(tokens, dtype=torch.bool), at)
    return bias.scores().masked_fill(~bias.visible()[:, None], -torch.inf)


@pytest.mark.spec("architecture.place-bias", "architecture.place-window", "architecture.place-strict")
@given(
    st.lists(st.integers(0, 14), min_size=1, max_size=10), st.integers(1, 3), st.sampled_from([None, 0, 1, 2]), st.booleans()
)
def test_place_scores_match_the_spec(tokens: list[int], reach: int, window: int | None, strict: bool) -> None:
    settings = {"place_reach": reach, "place_window": window, "place_strict": strict}
    scheme = PlacePositions(config("place", place_ids=tuple(range(10)), **settings))
    assert len(scheme.table) == architecture.bucket(0, 0, False, False, reach) + 1, "no entry without a bucket"
    bias = dense(scheme, torch.tensor([tokens]), torch.arange(len(tokens))[None])
    placed = architecture.in_runs(tokens, range(10))
    place, run = architecture.places(placed), architecture.runs(placed)
    for q in range(len(tokens)):
        for k in range(len(tokens)):
            entry = scheme.table[architecture.bucket(place[q], place[k], placed[k], run[q] == run[k], reach)] * 10
            seen = window is None or architecture.in_window(place[q], place[k], placed[k], window)
            seen &= not strict or architecture.seen_strictly(placed[q], placed[k])
            expected = entry if seen else torch.full_like(entry, -torch.inf)
            torch.testing.assert_close(bias[0, :, q, k], expected)


@pytest.mark.spec("architecture.place-bias")
def test_scores_of_some_queries_are_their_rows_of_the_whole() -> None:
    scheme = PlacePositions(config("place", place_ids=tuple(range(10)), place_window=1))
    tokens = torch.randint(0, 15, (2, 9))
    whole = dense(scheme, tokens, torch.arange(9).expand(2, -1))
    some = dense(scheme, tokens, torch.tensor([[7, 1, 1], [0, 8, 3]]))
    torch.testing.assert_close(some[0], whole[0][:, [7, 1, 1]])
    torch.testing.assert_close(some[1], whole[1][:, [0, 8, 3]])


@pytest.mark.spec("architecture.rope")
@given(st.integers(0, 5000), st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.sampled_from([100.0, 10_000.0, 500_000.0]))
def test_rope_matches_the_spec(position: int, vector: list[float], theta: float) -> None:
    rotation = RotaryPositions(config("rope", rope_theta=theta)).rotation(torch.tensor([[position]]))
    turned = rotation.turn(torch.tensor(vector, dtype=torch.float64).reshape(1, 1, 1, 4))
    expected = torch.tensor(architecture.rope(vector, position, theta), dtype=torch.float64)
    torch.testing.assert_close(turned.flatten(), expected, atol=1e-12, rtol=0)


@pytest.mark.spec("architecture.rope")
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_rope_scores_depend_on_the_difference_of_positions(query: int, key: int, shift: int) -> None:
    scheme, q, k = RotaryPositions(config("rope")), torch.randn(1, 1, 1, 4).double(), torch.randn(1, 1, 1, 4).double()

    def score(at_q: int, at_k: int) -> torch.Tensor:
        turn_q, turn_k = (scheme.rotation(torch.tensor([[at]])).turn for at in (at_q, at_k))
        return (turn_q(q) * turn_k(k)).sum()

    torch.testing.assert_close(score(query, key), score(query + shift, key + shift), atol=1e-10, rtol=0)


@pytest.mark.spec("architecture.learned-positions")
def test_learned_positions_refuse_a_text_longer_than_their_table() -> None:
    scheme = make_positions(config("learned", max_positions=4))
    scheme.embed(torch.arange(4)[None])
    with pytest.raises(ValueError, match="4 tokens: got a text of 5"):
        scheme.embed(torch.arange(5)[None])
