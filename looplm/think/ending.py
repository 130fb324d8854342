"""When a row of new tokens ends, and why."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from operator import index
from time import monotonic
from typing import Literal, SupportsIndex

from looplm.errors import InputError

FinishReason = Literal["stop", "length", "time"]


@dataclass(frozen=True)
class Ending:
    """What ends a row, checked.

    Spec: [generation.stop-tokens][], [generation.max-seconds][], [generation.finish-reason][].
    """

    max_new_tokens: int
    stop_tokens: frozenset[int]
    deadline: float
    """By the monotonic clock."""

    @classmethod
    def of(cls, max_new_tokens: int, stop_token: int | Collection[int], max_seconds: float | None) -> "Ending":
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
        return cls(most, frozenset(stops), math.inf if max_seconds is None else monotonic() + max_seconds)

    def reason(self, new: Sequence[int]) -> FinishReason | None:
        """Why a row ends with the last of its new tokens; None if it goes on."""
        if new[-1] in self.stop_tokens:
            return "stop"
        if len(new) >= self.max_new_tokens:
            return "length"
        return "time" if monotonic() >= self.deadline else None


def whole_numbers(name: str, given: Iterable[SupportsIndex]) -> list[int]:
    """Whole numbers of any kind.

    Raises:
        InputError: if one is none.
    """
    try:
        return [index(value) for value in given]
    except TypeError:
        raise InputError(f"`{name}` must be of whole numbers: got {given!r}.") from None
