"""Greedy decoding through the loop-aligned cache."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from looplm.loop.cache import KVCache
from looplm.loop.halting import HaltingRule
from looplm.models.looped import LoopLM
from looplm.shapes import Bool, Int


@dataclass(frozen=True)
class Generated:
    """New tokens of each row, up to and including its stop token."""

    tokens: list[list[int]]
    loops_taken: list[list[int]]
    """Loops of the token from which each new token was read."""


@torch.no_grad()
def generate(
    model: LoopLM,
    prompts: Annotated[Tensor, Int("B T")],
    *,
    halting: HaltingRule,
    max_new_tokens: int,
    stop_token: int,
    real: Annotated[Tensor, Bool("B T")] | None = None,
) -> Generated:
    """Continue each prompt with its most likely tokens until the stop token.

    The prompt's tokens run all `halting.max_loops` loops, except the last one, from which the first new token is read:
    it may halt, as every later token may. The result of a row does not depend on its batch mates or padding.

    Args:
        model: looped or static.
        prompts: ids, shorter ones padded on the left.
        halting: when a token stops.
        max_new_tokens: at least 1, for every row.
        stop_token: ends a row.
        real: False for padding; by default there is none.

    Spec: [architecture.cache][], [halting.kv-publish][].
    """
    if max_new_tokens < 1:
        raise ValueError(f"`max_new_tokens` must be at least 1: got {max_new_tokens}.")
    real = torch.ones_like(prompts, dtype=torch.bool) if real is None else real
    may_halt = torch.zeros_like(real)
    may_halt[:, -1] = True
    cache = KVCache(halting.max_loops, model.config.layers)
    thoughts = model.think(prompts, halting, real=real, may_halt=may_halt, cache=cache)
    tokens: list[list[int]] = [[] for _ in prompts]
    loops: list[list[int]] = [[] for _ in prompts]
    for count in range(1, max_new_tokens + 1):
        new = thoughts.logits[:, -1].argmax(-1)
        for row, (token, taken) in enumerate(zip(new.tolist(), thoughts.loops_taken[:, -1].tolist(), strict=True)):
            if tokens[row][-1:] != [stop_token]:
                tokens[row].append(token)
                loops[row].append(taken)
        if count == max_new_tokens or all(row[-1] == stop_token for row in tokens):
            break
        thoughts = model.think(new[:, None], halting, cache=cache)
    return Generated(tokens, loops)


def pad_left(rows: list[list[int]], pad: int) -> tuple[Annotated[Tensor, Int("B T")], Annotated[Tensor, Bool("B T")]]:
    """Prompts of different lengths as one batch, and which of its tokens are real."""
    width = max(map(len, rows))
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    real = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return tokens, real
