"""Attention of some tokens to others, or to themselves, where a mask says what is seen."""

import math
from typing import Annotated

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from looplm.shapes import Bool, Float


class CrossAttention(nn.Module):
    r"""$\mathrm{softmax}(QK^\top / \sqrt{K})\,V$ per head, then a projection; asking and asked may be one sequence.

    Source: Vaswani et al. 2017, section 3.2, arXiv:1706.03762; without biases, as the equations there.
    Spec: [seq2seq.attention][].
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        for each in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(each.weight)

    def forward(
        self,
        asking: Annotated[Tensor, Float("B T D")],
        asked: Annotated[Tensor, Float("B S D")],
        visible: Annotated[Tensor, Bool("M Q S")],
    ) -> Annotated[Tensor, Float("B T D")]:
        """What each asking token reads; Q is T, or 1 where all see the same, and M is B, or 1."""
        q, k, v = self._split(self.query(asking)), self._split(self.key(asked)), self._split(self.value(asked))
        read = scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None])
        mixed: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return mixed

    def weights(
        self,
        asking: Annotated[Tensor, Float("B T D")],
        asked: Annotated[Tensor, Float("B S D")],
        visible: Annotated[Tensor, Bool("M Q S")],
    ) -> Annotated[Tensor, Float("B H T S")]:
        """How much each asking token reads of each asked one, by head; rows sum to 1."""
        q, k = self._split(self.query(asking)), self._split(self.key(asked))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        return scores.masked_fill(~visible[:, None], -math.inf).softmax(-1)

    def _split(self, x: Tensor) -> Annotated[Tensor, Float("B H T K")]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
