"""A thinking trace: what each token of one question was thinking after each loop, and when it stopped."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from looplm.errors import InputError
from looplm.loop.halting import ByRole, HaltingRule, bound_for_slots, name_of
from looplm.models.body import Body, Hook
from looplm.task import Task
from looplm.think.answer import respond

SCHEMA = 2
"""Version of the trace's JSON layout (spec/trace.schema.json)."""
MAX_TRACED_TOKENS = 64
"""Tokens that a screen can show."""


@dataclass(frozen=True)
class TokenTrace:
    """One token, loop by loop."""

    text: str
    role: Literal["prompt", "answer"]
    """`answer` for the tokens from which an answer token is read: left to right, the last of the prompt and the answer's
    own; in parallel, the slots."""
    loops_taken: int
    halt_reason: str
    """The rule's name, or `max-loops`."""
    guesses: list[str]
    """The most likely next token after each loop taken."""
    confidences: list[float]
    """Its probability."""
    entropies: list[float]
    """Of the prediction, in nats."""
    changes: list[float]
    """Change of the state in each loop, relative to the norm of the state after it."""


@dataclass(frozen=True)
class Trace:
    """One question."""

    problem: str
    answer: str
    correct: bool | None
    """None where no single answer is right."""
    mode: Literal["left-to-right", "parallel"]
    rule: str
    prompt_rule: str
    max_loops: int
    block_evaluations: float
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
def trace_text(
    model: Body,
    task: Task,
    text: str,
    halting: HaltingRule,
    hook: Hook | None = None,
    *,
    bound_follows_slots: bool = False,
) -> Trace:
    """Answer a question, then read the whole text once more and keep what every loop gave.

    Args:
        model: trained on the task.
        task: what is asked.
        text: the question, as a user writes it.
        halting: when a token stops.
        hook: told the state after each loop of that second reading, Float[1 T D], and may change it.
        bound_follows_slots: whether a question with many slots may take more loops than `halting` says.

    Raises:
        InputError: if it is no question of the task, or has too many tokens to show.

    Spec: [halting.trace][], [halting.probe][].
    """
    prompt, symbols = task.prompt(text), task.vocabulary.symbols
    rules = bound_for_slots(halting, prompt.slots) if bound_follows_slots else ByRole.of(halting)
    if len(prompt.tokens) > MAX_TRACED_TOKENS:
        raise InputError(
            f"a trace shows texts of at most {MAX_TRACED_TOKENS} tokens: got {len(prompt.tokens)}; give a shorter one."
        )
    (response,) = respond(model, task, [text], rules)
    if prompt.slots:
        ids, first_answer = prompt.tokens, len(prompt.tokens) - prompt.slots
    else:
        ids, first_answer = prompt.tokens + response.tokens[:-1], len(prompt.tokens) - 1
    tokens = torch.tensor([ids], device=model.device)
    answer = (torch.arange(len(ids), device=tokens.device) >= first_answer)[None]
    thoughts = model.think(tokens, rules, answer=answer, keep_every_loop=True, hook=hook)
    assert thoughts.logits_per_loop is not None and thoughts.h_per_loop is not None
    logp = thoughts.logits_per_loop[:, 0].log_softmax(-1)  # [L, T, V]
    confidence, guess = logp.exp().max(-1)
    entropy = -(logp.exp() * logp).nan_to_num(0).sum(-1)
    h = thoughts.h_per_loop[:, 0]
    before = torch.cat((torch.zeros_like(h[:1]), h[:-1]))
    change = (torch.linalg.vector_norm(h - before, dim=-1) / torch.linalg.vector_norm(h, dim=-1)).nan_to_num(0)
    traced = []
    for t, token in enumerate(ids):
        taken = int(thoughts.loops_taken[0, t])
        role: Literal["prompt", "answer"] = "answer" if t >= first_answer else "prompt"
        rule = rules.answer if role == "answer" else rules.prompt
        traced.append(
            TokenTrace(
                text=symbols[token],
                role=role,
                loops_taken=taken,
                halt_reason="max-loops" if taken == rule.max_loops else name_of(rule),
                guesses=[symbols[g] for g in guess[:taken, t].tolist()],
                confidences=_rounded(confidence[:taken, t]),
                entropies=_rounded(entropy[:taken, t]),
                changes=_rounded(change[:taken, t]),
            )
        )
    return Trace(
        problem=text,
        answer=response.answer,
        correct=None if (right := task.right(text)) is None else response.answer == right,
        mode="parallel" if prompt.slots else "left-to-right",
        rule=name_of(rules.answer),
        prompt_rule=name_of(rules.prompt),
        max_loops=int(thoughts.loops_taken.max()),
        block_evaluations=round(response.block_evaluations, 3),
        tokens=traced,
    )


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]
