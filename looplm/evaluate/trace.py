"""A thinking trace: what each token of one sum was thinking after each loop, and when it stopped."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from looplm.data.addition import SYMBOLS, parse_problem, problems_of, write
from looplm.errors import InputError
from looplm.evaluate.solve import solve
from looplm.loop.halting import HaltingRule, make_halting
from looplm.models.looped import LoopLM

SCHEMA = 1
"""Version of the trace's JSON layout (spec/trace.schema.json)."""


MAX_TRACED_DIGITS = 24
"""Digits of both operands that a screen can show."""


@dataclass(frozen=True)
class TokenTrace:
    """One token, loop by loop."""

    text: str
    role: Literal["prompt", "answer"]
    """`answer` for the tokens from which an answer token is read: the last of the prompt, and the answer's own."""
    loops_taken: int
    halt_reason: str
    """The rule's name, or `max-loops`."""
    guesses: list[str]
    """The most likely next token after each loop taken."""
    confidences: list[float]
    """Its probability."""


@dataclass(frozen=True)
class Trace:
    """One sum."""

    problem: str
    answer: str
    correct: bool
    rule: str
    max_loops: int
    tokens: list[TokenTrace]

    def as_json(self) -> dict[str, Any]:
        """Plain values, in the layout of spec/trace.schema.json."""
        tokens = [vars(token) for token in self.tokens]
        return {"schema": SCHEMA, **vars(self), "tokens": tokens}


def read_trace(path: Path) -> dict[str, Any]:
    """A trace from the file that a run wrote."""
    trace = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(trace, dict)
    return trace


@torch.no_grad()
def trace_sum(model: LoopLM, problem: str, halting: HaltingRule | None = None) -> Trace:
    """Solve a sum, then read the whole text once more and keep what every loop gave.

    Raises:
        InputError: if the problem is not a sum, or has too many digits to show.
    """
    assert model.preset is not None
    operands = parse_problem(problem)
    if sum(map(len, operands)) > MAX_TRACED_DIGITS:
        raise InputError(
            f"a trace shows sums of at most {MAX_TRACED_DIGITS} digits in all: got {sum(map(len, operands))}; "
            "use `looplm solve`."
        )
    rule, name = halting or make_halting(model.preset.halting), model.preset.halting.rule
    solution = solve(model, [problem], rule)[0]
    texts = write(problems_of([operands]), model.preset.data.format)
    prompt = int(texts.prompt_length)
    tokens = torch.tensor([texts.tokens[0, :prompt].tolist() + solution.tokens[:-1]])
    position = torch.arange(tokens.shape[1])
    may_halt = (position >= prompt - 1)[None]
    device = model.embedding.weight.device
    thoughts = model.think(tokens.to(device), rule, may_halt=may_halt.to(device), keep_every_loop=True)
    assert thoughts.logits_per_loop is not None
    confidence, guess = thoughts.logits_per_loop[:, 0].softmax(-1).max(-1)
    traced = []
    for t, token in enumerate(tokens[0].tolist()):
        taken = int(thoughts.loops_taken[0, t])
        traced.append(
            TokenTrace(
                text=SYMBOLS[token],
                role="answer" if t >= prompt - 1 else "prompt",
                loops_taken=taken,
                halt_reason="max-loops" if taken == rule.max_loops else name,
                guesses=[SYMBOLS[g] for g in guess[:taken, t].tolist()],
                confidences=[round(c, 6) for c in confidence[:taken, t].tolist()],
            )
        )
    return Trace(solution.problem, solution.answer, solution.correct, name, rule.max_loops, traced)
