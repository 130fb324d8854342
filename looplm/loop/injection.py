"""What goes into the block at each loop: the state, the embedded input, the loop signal."""

from collections.abc import Callable
from typing import Annotated, Literal, Self

import torch
from torch import Tensor, nn

from looplm.config import ModelConfig
from looplm.shapes import Float

_SIGNAL_SIZE = 0.3


def inject(
    h: Annotated[Tensor, Float("B T D")],
    x0: Annotated[Tensor, Float("B T D")],
    l: int | Tensor,
    mode: Literal["every", "first"],
) -> Annotated[Tensor, Float("B T D")]:
    """The state with the embedded input added: at every loop, or only at loop 1.

    Args:
        h: state after loop l - 1.
        x0: embedding of the tokens.
        l: the loop to come, from 1; or one for each row, Int[B].
        mode: when x0 is added.

    Raises:
        ValueError: if the shapes differ.

    Source: h + x0 at every loop is the input injection of Bansal et al. 2022 ("recall"), arXiv:2202.05826.
    Spec: [injection.every-loop][], [injection.first-loop][], [injection.same-shape][].
    """
    if h.shape != x0.shape:
        raise ValueError(
            f"`x0` must have the shape of `h`: got x0 {list(x0.shape)}, h {list(h.shape)}. "
            "If you trimmed the context, trim both (injection.same-shape)."
        )
    if mode == "every":
        return h + x0
    if isinstance(l, Tensor):
        return torch.where((l == 1)[:, None, None], h + x0, h)
    return h + x0 if l == 1 else h


class LoopSignal(nn.Module):
    """A vector that tells the block which loop it is in; from `loop_signal_loops` on it stays the same.

    The sinusoidal table follows the model from dtype to dtype by being computed anew, so it is never rounded twice.

    Spec: [architecture.loop-signal][], [architecture.learned-loop-signal][].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.loops, self.kind = config.loop_signal_loops, config.loop_signal
        if config.loop_signal == "sinusoidal":
            self.register_buffer("table", sinusoidal_signal(self.loops, config.width), persistent=False)
        elif config.loop_signal == "learned":
            self.table: Tensor | None = nn.Parameter(torch.randn(self.loops, config.width) * config.embedding_std)
        else:
            self.table = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to`, `double` and their like do, and then the table exactly as the new dtype can hold it."""
        super()._apply(fn, recurse)
        if self.kind == "sinusoidal":
            table = self.table
            assert table is not None
            self.table = sinusoidal_signal(self.loops, table.shape[1], table.dtype).to(table.device)
        return self

    def forward(self, l: int | Tensor) -> Tensor | float:
        """The signal of loop l (from 1): Float[D], or 0 where there is none; of a loop for each row: Float[B 1 D]."""
        if self.table is None:
            return 0.0
        if isinstance(l, Tensor):
            return self.table[l.clamp(max=self.loops) - 1][:, None]
        return self.table[min(l, self.loops) - 1]


def sinusoidal_signal(loops: int, width: int, dtype: torch.dtype = torch.float32) -> Annotated[Tensor, Float("L D")]:
    """Sines, then cosines, of (l - 1) at falling frequencies, times 0.3; computed in float64, rounded to `dtype` once.

    Spec: [architecture.loop-signal][].
    """
    frequency = 10_000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(loops, dtype=torch.float64)[:, None] * frequency
    return torch.cat((angle.sin(), angle.cos()), dim=1)[:, :width].mul(_SIGNAL_SIZE).to(dtype)
