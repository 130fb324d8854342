"""Greedy decoding, each row at its own pace."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from looplm.loop.halting import HaltingRule
from looplm.models.looped import LoopLM
from looplm.shapes import Bool, Int
from looplm.think.backends import Backend, begin, choose


@dataclass(frozen=True)
class Generated:
    """New tokens of each row, up to and including its stop token."""

    tokens: list[list[int]]
    loops_taken: list[list[int]]
    """Loops of the token from which each new token was read."""
    block_evaluations: list[float]
    """Work of each row, its prompt included (halting.block-evaluations)."""
    calls: int
    """Of the block, or of the fused kernel, each for all rows that were still thinking."""
    backend: str = "torch"
    """What ran: torch, triton or reference."""
    backend_reason: str = ""
    """Why not the fused kernels, where they did not run."""


@torch.inference_mode()
def generate(
    model: LoopLM,
    prompts: Annotated[Tensor, Int("B T")],
    *,
    halting: HaltingRule,
    max_new_tokens: int,
    stop_token: int,
    real: Annotated[Tensor, Bool("B T")] | None = None,
    backend: Backend = "auto",
) -> Generated:
    """Continue each prompt with its most likely tokens until the stop token.

    The last token of a prompt, from which the first new token is read, counts as part of the answer; a rule may treat
    the other tokens apart. The result of a row does not depend on its batch mates or padding. A row whose token has
    halted starts its next one at once, while others still think.

    Args:
        model: looped or static.
        prompts: ids, shorter ones padded on the left.
        halting: when a token stops.
        max_new_tokens: at least 1, for every row.
        stop_token: ends a row.
        real: False for padding; by default there is none.
        backend: what runs the loop; `auto` takes the fastest that can, and the result says which.

    Raises:
        InputError: if a backend was asked for by name and cannot run.

    Spec: [architecture.greedy][], [architecture.cache][], [halting.kv-publish][], [halting.roles][], [kernels.backends][].
    """
    if max_new_tokens < 1:
        raise ValueError(f"`max_new_tokens` must be at least 1: got {max_new_tokens}.")
    answer = torch.zeros_like(prompts, dtype=torch.bool)
    answer[:, -1] = True
    chosen = choose(backend, model, halting)
    batch = begin(model, prompts, halting, real=real, answer=answer, room=max_new_tokens - 1, backend=chosen.name)
    while bool(batch.running.any()):  # one view serves all prompts, so no row goes on before the others are read
        batch.advance()
    tokens: list[list[int]] = [[] for _ in prompts]
    loops: list[list[int]] = [[] for _ in prompts]
    ready, unfinished = list(range(len(prompts))), len(prompts)
    while True:
        going_on = []
        for row, (token, count) in zip(ready, batch.newest(ready), strict=True):
            tokens[row].append(token)
            loops[row].append(count)
            if token != stop_token and len(tokens[row]) < max_new_tokens:
                going_on.append(row)
        unfinished -= len(ready) - len(going_on)
        if not unfinished:
            return Generated(tokens, loops, batch.block_evaluations.tolist(), batch.calls, chosen.name, chosen.why)
        batch.append(going_on, torch.tensor([tokens[row][-1] for row in going_on], dtype=torch.int64, device=prompts.device))
        batch.advance()
        ready = batch.halted


def pad_left(rows: list[list[int]], pad: int) -> tuple[Annotated[Tensor, Int("B T")], Annotated[Tensor, Bool("B T")]]:
    """Prompts of different lengths as one batch, and which of its tokens are real."""
    width = max(map(len, rows))
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    real = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return tokens, real
