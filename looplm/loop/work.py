"""What thinking costs, counted in evaluations of the block."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from looplm.shapes import Float, Int

Offer = Literal["publish", "carry", "recompute", "no-freeze"]
"""What a halted token shows to others (halting.kv-publish, halting.kv-alternatives)."""


def block_evaluations(
    loops_taken: Annotated[Tensor, Int("B T")], kv_share: float, offer: Offer = "publish"
) -> Annotated[Tensor, Float("B")]:
    """Work of each row, had nothing been computed that nobody reads; padding takes 0 loops.

    Args:
        loops_taken: of each token.
        kv_share: of a K/V-only pass in an evaluation of the block.
        offer: what halted tokens show.

    Spec: [halting.block-evaluations][].
    """
    later = loops_taken.flip(1).cummax(1).values.flip(1)[:, 1:]
    most_later = torch.cat((later, torch.zeros_like(loops_taken[:, :1])), 1)
    behind = (most_later - loops_taken).clamp(min=0) * (loops_taken > 0)
    passes, share = {
        "publish": (behind > 0, kv_share),
        "carry": (behind, 0.0),
        "recompute": (behind, kv_share),
        "no-freeze": (behind, 1.0),
    }[offer]
    return loops_taken.sum(1) + share * passes.sum(1).double()
