"""Dropout whose masks are keyed: by step, row, loop and place in the model, so that any cut of a batch drops the same."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from looplm.draws import Draw
from looplm.shapes import Float


@dataclass(frozen=True)
class _Dropping:
    share: float
    draw: Draw
    rows: Sequence[int]
    l: int = 1


_NOW: ContextVar[_Dropping | None] = ContextVar("dropping", default=None)


@contextmanager
def dropping(share: float, draw: Draw, rows: Sequence[int]) -> Iterator[None]:
    """Within it, dropout is on: for rows of these numbers in the global batch."""
    token = _NOW.set(_Dropping(share, draw, rows) if share else None)
    try:
        yield
    finally:
        _NOW.reset(token)


@contextmanager
def in_loop(l: int) -> Iterator[None]:
    """Within it, masks are those of loop l."""
    now = _NOW.get()
    token = _NOW.set(now and replace(now, l=l))
    try:
        yield
    finally:
        _NOW.reset(token)


class Dropout(nn.Module):
    """Drops components of what a layer adds to the stream, and scales up the others; does nothing but while training.

    Source: Srivastava et al. 2014, JMLR 15; on the branches of a residual layer as in Vaswani et al. 2017, section 5.4.
    Spec: [training.dropout][].
    """

    site = ""
    """Where in the model it stands."""

    def forward(self, x: Annotated[Tensor, Float("B T D")]) -> Annotated[Tensor, Float("B T D")]:
        """X, or what is left of it."""
        now = _NOW.get()
        if now is None:
            return x
        draw = now.draw.of(f"{self.site}/{now.l}")
        drawn = torch.empty(x.shape)
        for at, row in enumerate(now.rows):
            torch.rand(x.shape[1:], generator=draw.generator(row), out=drawn[at])
        return x * (drawn >= now.share).to(x) / (1 - now.share)
