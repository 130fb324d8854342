"""Generation on a CPU: what halting saves by the clock, beside GPT-2 of transformers.

A model of drawn weights; how long tokens think is told by a table, so that speed does not depend on what was trained. The
table is looked up by the guess of the token: so it needs the head and a rule's question after each loop, as real rules do.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from looplm.bench.opponents import GPT2
from looplm.bench.timing import Clock, Run, cpu_clock, timed
from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.loop.halting import Bounded, ByRole, Evidence, HaltingRule
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.runs.provenance import circumstances
from looplm.shapes import Bool, Int
from looplm.think.batched import Thinking
from looplm.think.generate import Generated, generate

SCHEMA = 1
LOOPS, MEAN_LOOPS = 12, 5
VOCABULARY, HEADS, WIDTH, PROMPT, NEW, PREFILL = 512, 8, 256, 16, 32, 512
NEVER = -1


@dataclass(frozen=True)
class Planned(Bounded):
    """A token is ready after as many loops as a table says, which is looked up by what it guesses.

    So many loops are 1 + Binomial(11, 4/11): 5 of 12 in the mean, if a token's guess did not change.
    """

    looks_at: ClassVar[frozenset[str]] = frozenset({"guess", "confidence"})

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens for which the table says so."""
        return _TABLE[seen.guess, seen.l - 1]


def _hazards(loops: int, mean: float) -> list[float]:
    """Of a token that still thinks, how likely it is to halt after each loop."""
    share = (mean - 1) / (loops - 1)
    left, hazards = 1.0, []
    for k in range(loops):
        now = math.comb(loops - 1, k) * share**k * (1 - share) ** (loops - 1 - k)
        hazards.append(now / left if k < loops - 1 else 1.0)
        left -= now
    return hazards


_TABLE = torch.rand(VOCABULARY, LOOPS, generator=torch.Generator().manual_seed(0)) < torch.tensor(_hazards(LOOPS, MEAN_LOOPS))


def draw_model(width: int = WIDTH, heads: int = HEADS) -> LoopLM:
    """A looped model of one layer, with weights under which texts do not settle on one token."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(
            ModelConfig(
                vocab_size=VOCABULARY,
                width=width,
                heads=heads,
                mlp="gelu",
                mlp_width=4 * width,
                positions="rope",
                embedding_std=0.5,
                loop_signal="sinusoidal",
                loop_signal_loops=LOOPS,
                state_norm=True,
            )
        ).eval()
        with torch.no_grad():
            model.head_norm.get_parameter("weight").normal_()
            for name in ("qkv", "out"):
                model.block.get_parameter(f"layers.0.attention.{name}.weight").mul_(4)
    return model


def report(batches: tuple[int, ...], count: int, clock: Clock = cpu_clock) -> Iterator[dict[str, Any]]:
    """Where and what with, then a row for each batch and for a long prompt."""
    model, opponent = draw_model(), GPT2(LOOPS, WIDTH, HEADS, VOCABULARY, PROMPT + NEW)
    yield circumstances(torch.device("cpu")) | {"schema": SCHEMA, "transformers": opponent.version, "rounds": count}
    for batch in batches:
        yield decode(model, opponent, batch, count, clock)
    yield prefill(model, count, clock)


def decode(
    model: LoopLM, opponent: GPT2 | None, batch: int, count: int, clock: Clock = cpu_clock, new: int = NEW
) -> dict[str, Any]:
    """Prompts of 16 tokens continued by `new` each: seconds of a call of each contender, and ratios.

    Raises:
        InputError: if texts that are thought about as they come are not those that are read whole; nothing is timed then.
    """
    rule = ByRole(Planned(LOOPS), Fixed(LOOPS))
    prompts, found = _near_the_mean(model, rule, batch, new)
    _same_as_read_whole(model, rule, prompts, found)
    contenders: dict[str, Run] = {
        "halting": partial(_generate, model, prompts, rule, new),
        "all loops": partial(_generate, model, prompts, Fixed(LOOPS), new),
        "rows wait": partial(waiting, model, prompts, rule, new),
    }
    if opponent:
        contenders |= {
            "GPT-2": partial(opponent.bare, prompts, new),
            "GPT-2 generate": partial(opponent.generate, prompts, new),
        }
    pairs = [("GPT-2", "halting"), ("GPT-2 generate", "halting"), ("GPT-2", "all loops"), ("rows wait", "halting")]
    sizes = {"what": "decode", "batch": batch, "width": model.config.width, "prompt": PROMPT, "new": new}
    return (
        sizes | {"calls": found.calls, "mean_loops": _mean(found), "most_loops": LOOPS} | timed(contenders, pairs, count, clock)
    )


def prefill(model: LoopLM, count: int, clock: Clock = cpu_clock, tokens: int = PREFILL) -> dict[str, Any]:
    """A prompt read with halting, and with all loops."""
    text, rule = _prompts(1, 0, tokens), Planned(LOOPS)

    def read(halting: HaltingRule) -> Thinking:
        thinking = Thinking(model, text, halting)
        while bool(thinking.running.any()):
            thinking.advance()
        return thinking

    loops = read(rule).loops_taken[:, :tokens]
    contenders: dict[str, Run] = {"halting": partial(read, rule), "all loops": partial(read, Fixed(LOOPS))}
    sizes = {"what": "prefill", "batch": 1, "width": model.config.width, "prompt": tokens}
    sizes |= {"mean_loops": float(loops.float().mean()), "most_loops": LOOPS}
    return sizes | timed(contenders, [("all loops", "halting")], count, clock)


@torch.inference_mode()
def waiting(model: LoopLM, prompts: Annotated[Tensor, Int("B T")], rule: HaltingRule, new: int) -> list[list[int]]:
    """As `generate`, but a row whose token has halted waits until those of all rows have."""
    answer = torch.zeros_like(prompts, dtype=torch.bool)
    answer[:, -1] = True
    thinking, rows = Thinking(model, prompts, rule, answer=answer, room=new - 1), list(range(len(prompts)))
    tokens: list[list[int]] = [[] for _ in rows]
    while True:
        while bool(thinking.running.any()):
            thinking.advance()
        for row, (token, _) in zip(rows, thinking.newest(rows), strict=True):
            tokens[row].append(token)
        if len(tokens[0]) == new:
            return tokens
        thinking.append(rows, torch.tensor([of[-1] for of in tokens]))


def _generate(model: LoopLM, prompts: Tensor, rule: HaltingRule, new: int) -> Generated:
    return generate(model, prompts, halting=rule, max_new_tokens=new, stop_token=NEVER, backend="torch")


def _prompts(batch: int, seed: int, length: int) -> Annotated[Tensor, Int("B T")]:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def _near_the_mean(model: LoopLM, rule: HaltingRule, batch: int, new: int) -> tuple[Tensor, Generated]:
    """The first prompts, of seeds from 0 on, under which new tokens take 5 loops in the mean, to 0.15."""
    for seed in range(1000):
        prompts = _prompts(batch, seed, PROMPT)
        found = _generate(model, prompts, rule, new)
        if abs(_mean(found) - MEAN_LOOPS) < 0.15:
            return prompts, found
    raise InputError(f"no prompts of seeds below 1,000 take {MEAN_LOOPS} loops a token in the mean.")


def _mean(found: Generated) -> float:
    """Loops of a new token; the prompt's last token, from which the first is read, is the prompt's."""
    return statistics.mean(loops for of_row in found.loops_taken for loops in of_row[1:])


def _same_as_read_whole(model: LoopLM, rule: HaltingRule, prompts: Tensor, found: Generated) -> None:
    for prompt, tokens, loops in zip(prompts.tolist(), found.tokens, found.loops_taken, strict=True):
        whole, first = torch.tensor([prompt + tokens[:-1]]), len(prompt) - 1
        thoughts = model.think(whole, rule, answer=torch.arange(whole.shape[1])[None] >= first)
        same = thoughts.logits[0, first:].argmax(-1).tolist() == tokens and thoughts.loops_taken[0, first:].tolist() == loops
        if not same:
            raise InputError("texts thought about as they come are not those that are read whole: nothing is timed.")
