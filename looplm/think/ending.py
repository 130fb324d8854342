"""New tokens; when a row of them ends, and why."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from operator import index
from time import monotonic
from typing import Literal, SupportsIndex

from looplm.errors import InputError

FinishReason = Literal["stop", "length", "time"]
Decode = Callable[[list[int]], str]
"""The text of some tokens; U+FFFD at its end may stand for a character that is not whole yet."""


@dataclass(frozen=True)
class NewToken:
    """A token that a stream gives."""

    row: int
    token: int
    loops_taken: int
    """Of the token from which it was read."""
    ran_out: bool
    """Whether that token was stopped by the bound on loops."""
    log_probability: float | None = None
    """By the logits, before any filter; None if it was not asked for."""
    finish_reason: FinishReason | None = None
    """Why its row ends with it; None if the row goes on."""
    text: str = ""
    """What it adds to the text of its row, by `decode`; what may be part of a stop string waits for a later token."""


@dataclass(frozen=True)
class Ending:
    """What ends a row, checked.

    Spec: [generation.stop-tokens][], [generation.stop-strings][], [generation.max-seconds][], [generation.finish-reason][].
    """

    max_new_tokens: int
    stop_tokens: frozenset[int]
    deadline: float
    """By the monotonic clock."""
    stop_strings: tuple[str, ...]
    decode: Decode | None

    @classmethod
    def of(
        cls,
        max_new_tokens: int,
        stop_token: int | Collection[int],
        max_seconds: float | None,
        stop_strings: str | Sequence[str],
        decode: Decode | None,
    ) -> "Ending":
        """As users give it; the time runs from now on.

        Raises:
            InputError: if a value cannot be.
        """
        (most,) = whole_numbers("max_new_tokens", [max_new_tokens])
        if most < 1:
            raise InputError(f"`max_new_tokens` must be at least 1: got {most}.")
        several = hasattr(stop_token, "__iter__") and getattr(stop_token, "ndim", 1) > 0
        stops = whole_numbers("stop_token", stop_token if several else [stop_token])  # type: ignore[arg-type, list-item]
        if max_seconds is not None and not (isinstance(max_seconds, Real) and max_seconds > 0):
            raise InputError(f"`max_seconds` must be a number above 0, or None for no limit: got {max_seconds!r}.")
        strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings or ())
        if "" in strings or not all(isinstance(each, str) for each in strings) or stop_strings == "":
            raise InputError(f"`stop_strings` must be strings that are not empty: got {stop_strings!r}.")
        if strings and decode is None:
            raise InputError("`stop_strings` are looked for in text: give `decode` too, which makes text of tokens.")
        deadline = math.inf if max_seconds is None else monotonic() + max_seconds
        return cls(most, frozenset(stops), deadline, strings, decode)

    def look(self, new: Sequence[int]) -> tuple[FinishReason | None, str]:
        """Why a row ends with the last of its new tokens, None if it goes on; and its text, as far as that is sure."""
        text = self.decode([*new]) if self.decode else ""
        until = cut(text, self.stop_strings)
        if new[-1] in self.stop_tokens or len(until) < len(text):
            return "stop", until
        if len(new) >= self.max_new_tokens:
            return "length", text
        return ("time", text) if monotonic() >= self.deadline else (None, sure(text, self.stop_strings))


def cut(text: str, stop_strings: Sequence[str]) -> str:
    """What stands before the first stop string.

    Spec: [generation.stop-strings][].
    """
    return text[: min((text.index(stop) for stop in stop_strings if stop in text), default=len(text))]


def sure(text: str, stop_strings: Sequence[str]) -> str:
    """A text without what more tokens may change: its end, if a stop string or an unfinished character may stand there.

    Spec: [generation.held-back][].
    """
    text = text.rstrip("\ufffd")
    held = (n for stop in stop_strings for n in range(1, len(stop)) if text.endswith(stop[:n]))
    return text[: len(text) - max(held, default=0)]


def whole_numbers(name: str, given: Iterable[SupportsIndex]) -> list[int]:
    """Whole numbers of any kind.

    Raises:
        InputError: if one is none.
    """
    try:
        return [index(value) for value in given]
    except TypeError:
        raise InputError(f"`{name}` must be of whole numbers: got {given!r}.") from None
