"""Questions of a task, answered: written after the prompt, or read in place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from looplm.loop.halting import HaltingRule, bound_for_slots, loops_that_run_out
from looplm.models.body import Body
from looplm.task import Prompt, Task
from looplm.think.backends import Backend, begin, choose
from looplm.think.generate import generate, pad_left

_SCORES_PER_BATCH = 8_000_000
"""Pairs of tokens of a row that are held at once; keeps memory flat over lengths."""


@dataclass(frozen=True)
class Response:
    """What a model made of one question."""

    question: str
    answer: str
    """What the model wrote, right or wrong."""
    tokens: list[int]
    """The answer as the model wrote it, up to and including the end mark."""
    loops_taken: list[int]
    """Of the token from which each token of the answer is read; in place, of every slot."""
    block_evaluations: float
    """Work for the whole text, the prompt included."""
    ran_out: bool = False
    """Whether a token of the answer was stopped by the bound on loops: then the model was not done."""


def respond(
    model: Body,
    task: Task,
    questions: Sequence[str],
    halting: HaltingRule,
    backend: Backend = "auto",
    *,
    bound_follows_slots: bool = False,
) -> list[Response]:
    """Answer questions in batches of like length, answers in the order of the questions.

    Args:
        model: trained on the task.
        task: turns questions into prompts, and tokens into answers.
        questions: as users write them.
        halting: when a token stops.
        backend: what runs the loop, as for generate.
        bound_follows_slots: whether a question with many slots may take more loops than `halting` says.

    Raises:
        InputError: if one is no question of the task.

    Spec: [halting.slots][], [halting.ran-out][].
    """
    prompts = [task.prompt(question) for question in questions]
    rules = [bound_for_slots(halting, prompt.slots) if bound_follows_slots else halting for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (prompts[i].slots > 0, rules[i].max_loops, _length(prompts[i])))
    responses: dict[int, Response] = {}
    while order:
        last, rule = prompts[order[-1]], rules[order[-1]]
        rows = max(1, _SCORES_PER_BATCH // _length(last) ** 2)
        batch = [i for i in order[-rows:] if (prompts[i].slots > 0) == (last.slots > 0) and rules[i] == rule]
        order = order[: len(order) - len(batch)]
        answer_with = _in_place if last.slots else _after
        made = answer_with(model, task, [prompts[i] for i in batch], rule, backend)
        for i, (tokens, loops, work) in zip(batch, made, strict=True):
            out = max(loops, default=0) >= loops_that_run_out(rule)
            responses[i] = Response(questions[i], task.answer(tokens), tokens, loops, work, out)
    return [responses[i] for i in range(len(prompts))]


_Made = list[tuple[list[int], list[int], float]]


def _length(prompt: Prompt) -> int:
    return len(prompt.tokens) + prompt.max_new_tokens


def _after(model: Body, task: Task, prompts: Sequence[Prompt], halting: HaltingRule, backend: Backend) -> _Made:
    tokens, real = pad_left([prompt.tokens for prompt in prompts], task.vocabulary.pad)
    made = generate(
        model,
        tokens.to(model.device),
        halting=halting,
        max_new_tokens=max(prompt.max_new_tokens for prompt in prompts),
        stop_token=-1 if task.vocabulary.stop is None else task.vocabulary.stop,
        real=real.to(model.device),
        backend=backend,
    )
    return list(zip(made.tokens, made.loops_taken, made.block_evaluations, strict=True))


def _in_place(model: Body, task: Task, prompts: Sequence[Prompt], halting: HaltingRule, backend: Backend) -> _Made:
    """All slots at once; an answer ends with the first end mark, and the slots beyond it are not part of it."""
    tokens, real = pad_left([prompt.tokens for prompt in prompts], task.vocabulary.pad)
    width, stop = tokens.shape[1], task.vocabulary.stop
    first_slot = torch.tensor([width - prompt.slots for prompt in prompts])
    answer = torch.arange(width) >= first_slot[:, None]
    device, chosen = model.device, choose(backend, model, halting)
    thinking = begin(model, tokens.to(device), halting, real=real.to(device), answer=answer.to(device), backend=chosen.name)
    while bool(thinking.running.any()):
        thinking.advance()
    made = []
    for row, prompt in enumerate(prompts):
        slots = slice(width - prompt.slots, width)
        filled, loops = thinking.guess[row, slots].tolist(), thinking.loops_taken[row, slots].tolist()
        written = filled[: filled.index(stop) + 1] if stop in filled else filled
        made.append((written, loops, float(thinking.block_evaluations[row])))
    return made
