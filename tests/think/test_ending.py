"""When a row ends, and what is said of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import VOCABULARY, models, texts
from torch import Tensor

from looplm.loop.halting.fixed import Fixed
from looplm.models.looped import LoopLM
from looplm.spec import oracle
from looplm.think import ending
from looplm.think.generate import generate, stream
from looplm.think.sampling import Sampling

generation = oracle("generation")
NEVER = -1


@pytest.mark.spec("generation.stop-tokens")
@given(models(positions="none"), texts(max_rows=2), st.sets(st.integers(0, VOCABULARY - 1)), st.integers(1, 6))
def test_a_row_ends_with_the_first_of_its_stop_tokens(model: LoopLM, tokens: Tensor, stops: set[int], most: int) -> None:
    endless = generate(model, tokens, halting=Fixed(2), max_new_tokens=most, stop_token=NEVER).tokens
    made = generate(model, tokens, halting=Fixed(2), max_new_tokens=most, stop_token=stops).tokens
    for all_new, new in zip(endless, made, strict=True):
        end = next(n for n in range(1, most + 1) if generation.ended(all_new[:n], stops, most))
        assert new == all_new[:end]


@pytest.mark.spec("generation.max-seconds", "generation.finish-reason")
@given(
    models(positions="none"),
    texts(max_rows=3),
    st.sets(st.integers(0, VOCABULARY - 1), max_size=4),
    st.integers(1, 6),
    st.none() | st.integers(1, 12),
)
def test_a_row_ends_with_its_first_token_after_the_time_and_says_why(
    model: LoopLM, tokens: Tensor, stops: set[int], most: int, seconds: int | None
) -> None:
    clock = {"now": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "monotonic", lambda: clock["now"])
        made: list[list[tuple[int, float, str | None]]] = [[] for _ in tokens]
        asked = {"halting": Fixed(2), "max_new_tokens": most, "stop_token": stops, "max_seconds": seconds}
        for new in stream(model, tokens, **asked):  # type: ignore[arg-type]
            made[new.row].append((new.token, clock["now"], new.finish_reason))
            clock["now"] += 1
        clock["now"] = 0.0
        whole = generate(model, tokens, **asked)  # type: ignore[arg-type]
    limit = float("inf") if seconds is None else seconds
    for row in made:
        for count, (token, now, reason) in enumerate(row, 1):
            assert reason == generation.finish_reason(token in stops, count, most, now, limit)
            assert (reason is None) == (count < len(row))
    for row, all_new, reason in zip(made, whole.tokens, whole.finish_reason, strict=True):
        assert [token for token, _, _ in row] == all_new[: len(row)]
        assert reason == ("stop" if all_new[-1] in stops else "length"), "its clock stood still"


_BYTES = [b"a", b"b", b"ab", b"ba", b"\xea\xb0", b"\x80", b"a\xea", b"\xb0\x80b", b"", b"\xff"]


def decode(tokens: list[int]) -> str:
    """Tokens of no, one or more bytes, some of them parts of a character."""
    return b"".join(_BYTES[token % len(_BYTES)] for token in tokens).decode(errors="replace")


@pytest.mark.spec("generation.stop-strings", "generation.held-back", "generation.stream")
@given(
    models(positions="none"),
    texts(max_rows=2),
    st.lists(st.text("ab\uac00", min_size=1, max_size=3), max_size=3),
    st.integers(0, 9),
)
def test_a_text_ends_before_its_first_stop_string_and_no_part_of_that_is_ever_given(
    model: LoopLM, tokens: Tensor, strings: list[str], seed: int
) -> None:
    asked = {"halting": Fixed(2), "max_new_tokens": 8, "stop_token": NEVER, "sampling": Sampling(temperature=1.0, seed=seed)}
    endless = generate(model, tokens, **asked).tokens  # type: ignore[arg-type]
    made = generate(model, tokens, stop_strings=strings, decode=decode, **asked)  # type: ignore[arg-type]
    said: list[str] = [""] * len(tokens)
    counts = [0] * len(tokens)
    for new in stream(model, tokens, stop_strings=strings, decode=decode, **asked):  # type: ignore[arg-type]
        said[new.row], counts[new.row] = said[new.row] + new.text, counts[new.row] + 1
        if new.finish_reason is None:
            assert said[new.row] == generation.sure(decode(endless[new.row][: counts[new.row]]), strings)
    assert made.texts == said
    for row, (all_new, text) in enumerate(zip(endless, said, strict=True)):
        found = [n for n in range(1, 9) if any(string in decode(all_new[:n]) for string in strings)]
        assert made.tokens[row] == all_new[: found[0] if found else 8]
        assert made.finish_reason[row] == ("stop" if found else "length")
        assert text == generation.cut(decode(made.tokens[row]), strings)
