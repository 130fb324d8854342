"""What slots are made of: reading by content, and a matrix that stays within a bound."""

from typing import Annotated

import torch
from torch import Tensor, nn

from looplm.shapes import Float

SQUARINGS = 10
"""Of CᵀC, in the power iteration."""


def bounded(connection: Annotated[Tensor, Float("N N")]) -> Annotated[Tensor, Float("N N")]:
    """C, divided by its largest singular value where that is above 1; the gradient takes the singular vectors as given.

    Source: Miyato et al. 2018, Spectral normalization, section 2.1, arXiv:1802.05957. We differ: the power iteration squares
    its matrix, and begins anew each time, so nothing is kept between steps.
    Spec: [connection.bound][].
    """
    with torch.no_grad():
        power = connection.T @ connection
        for _ in range(SQUARINGS):
            power = power / power.abs().amax().clamp(min=torch.finfo(power.dtype).tiny)
            power = power @ power
        v = power[:, power.norm(dim=0).argmax()]
        v = v / v.norm().clamp(min=torch.finfo(v.dtype).tiny)
    return connection / torch.linalg.vector_norm(connection @ v).clamp(min=1.0)


def collapsed(connection: Annotated[Tensor, Float("N N")], steps: int) -> Annotated[Tensor, Float("N N")]:
    """The matrix with which one step gives what so many give with C, where there is neither norm nor re-reading.

    Spec: [connection.collapses][].
    """
    one = torch.eye(len(connection), dtype=connection.dtype, device=connection.device)
    return torch.linalg.matrix_power(one + connection, steps) - one


class Reading(nn.Module):
    """Attention without a bias; queries and keys start alike, and what is read is written as it was read.

    Spec: [connection.reading][].
    """

    def __init__(self, width: int, heads: int, gain: float, written: float = 1.0) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        with torch.no_grad():
            same, read = (nn.init.orthogonal_(torch.empty(width, width)) for _ in range(2))
            self.query.weight.copy_(gain * same)
            self.key.weight.copy_(gain * same)
            self.value.weight.copy_(read)
            self.out.weight.copy_(written * read.T)

    def forward(
        self,
        asking: Annotated[Tensor, Float("B Q D")],
        asked: Annotated[Tensor, Float("B M D")],
        added: Annotated[Tensor, Float("B P M")] | None = None,
    ) -> tuple[Annotated[Tensor, Float("B Q D")], Annotated[Tensor, Float("B Q M")]]:
        """What was read, and how much of each, the mean over heads; `added` to the logits, one row for all or one for each."""
        q, k, v = (self._split(of(x)) for of, x in ((self.query, asking), (self.key, asked), (self.value, asked)))
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        weights = (logits if added is None else logits + added[:, None]).softmax(-1)  # [B, H, Q, M]
        read = (weights @ v).transpose(1, 2).flatten(2)
        return self.out(read), weights.mean(1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
