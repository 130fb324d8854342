"""Generation, each row at its own pace: greedy or drawn, at once or as a stream."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.layers.positions import LearnedPositions
from looplm.loop.halting import HaltingRule, loops_that_run_out
from looplm.models.body import Body
from looplm.models.looped import LoopLM, looped
from looplm.shapes import Bool, Int
from looplm.think.backends import Backend, Choice, Thinker, begin, choose
from looplm.think.batched import Thinking
from looplm.think.beam import Beam, Search
from looplm.think.ending import Decode, Ending, FinishReason, NewToken, whole_numbers
from looplm.think.sampling import Sampling
from looplm.think.whole import WholeThinking

_GREEDY = Sampling()
Prompts = Annotated[Tensor, Int("B T")] | Sequence[Sequence[int]]


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
    ran_out: list[list[bool]] = field(default_factory=list)
    """Whether the token from which each new token was read was stopped by the bound on loops."""
    log_probabilities: list[list[float]] | None = None
    """Of each new token, by the logits before any filter, if asked for."""
    finish_reason: list[FinishReason] = field(default_factory=list)
    """Why each row ended: by a stop token, with as many tokens as were asked for, or because time was up."""
    texts: list[str] | None = None
    """Of each row's new tokens, cut before a stop string; None without `decode`."""


def generate(
    model: Body,
    prompts: Prompts,
    *,
    halting: HaltingRule,
    max_new_tokens: int,
    stop_token: int | Collection[int],
    real: Annotated[Tensor, Bool("B T")] | None = None,
    backend: Backend = "auto",
    sampling: Sampling = _GREEDY,
    seeds: Sequence[int] | None = None,
    log_probabilities: bool = False,
    max_seconds: float | None = None,
    stop_strings: str | Sequence[str] = (),
    decode: Decode | None = None,
    beam: Beam | None = None,
) -> Generated:
    """Continue each prompt until a stop token: with its most likely tokens, or as the settings say.

    The last token of a prompt, from which the first new token is read, counts as part of the answer; a rule may treat
    the other tokens apart. The result of a row does not depend on its batch mates or padding. A row whose token has
    halted starts its next one at once, while others still think.

    Args:
        model: looped or static, or another body that writes.
        prompts: ids, shorter ones padded on the left; or lists of ids of any lengths.
        halting: when a token stops.
        max_new_tokens: at least 1, for every row.
        stop_token: ends a row; or several, each of which does.
        real: False for padding; by default there is none.
        backend: what runs the loop; `auto` takes the fastest that can, and the result says which.
        sampling: how a token is chosen; by default greedily.
        seeds: of the random numbers of each row; by default the settings' seed and the row's number.
        log_probabilities: also give those of the new tokens.
        max_seconds: after which, counted from the call, each row ends with its next token; by default there is no limit.
        stop_strings: one in the text of its new tokens ends a row; the result's text is cut before it.
        decode: the text of new tokens; given, the result has texts.
        beam: search for the likeliest text of each prompt, instead of choosing token by token.

    Raises:
        InputError: before anything runs, if an argument cannot be, or a backend was asked for by name and cannot run.

    Spec: [architecture.greedy][], [architecture.cache][], [halting.kv-publish][], [halting.roles][], [kernels.backends][],
    [generation.filters][], [generation.stop-tokens][], [generation.stop-strings][], [generation.max-seconds][],
    [generation.finish-reason][], [generation.log-probabilities][], [generation.refused][], [generation.beam-refused][].
    """
    drawing = _Drawing.of(Ending.of(max_new_tokens, stop_token, max_seconds, stop_strings, decode), sampling, log_probabilities)
    if beam is not None:
        if not isinstance(beam, Beam):
            raise InputError(f"`beam` must be a looplm.Beam: got {beam!r}.")
        if sampling.temperature > 0:
            raise InputError(f"`beam` draws nothing: got temperature {sampling.temperature}; leave one of them out.")
    batch, chosen = _begin(model, prompts, halting, real, backend, seeds, drawing, beam is not None)
    runs_out = loops_that_run_out(halting)
    if beam is not None:
        assert isinstance(batch, Thinking | WholeThinking), "`choose` has asked"
        search = Search(batch, drawing.texts, beam, drawing.ending, sampling)
        made, work = search.run(runs_out), search.block_evaluations
    else:
        made = [[] for _ in drawing.texts]
        for new in _go_on(batch, drawing, runs_out):
            made[new.row].append(new)
        work = batch.block_evaluations.tolist()
    return Generated(
        [[new.token for new in row] for row in made],
        [[new.loops_taken for new in row] for row in made],
        work,
        batch.calls,
        chosen.name,
        chosen.why,
        [[new.ran_out for new in row] for row in made],
        [[new.log_probability for new in row if new.log_probability is not None] for row in made]
        if log_probabilities
        else None,
        [row[-1].finish_reason for row in made if row[-1].finish_reason],
        ["".join(new.text for new in row) for row in made] if decode else None,
    )


def stream(
    model: Body,
    prompts: Prompts,
    *,
    halting: HaltingRule,
    max_new_tokens: int,
    stop_token: int | Collection[int],
    real: Annotated[Tensor, Bool("B T")] | None = None,
    backend: Backend = "auto",
    sampling: Sampling = _GREEDY,
    seeds: Sequence[int] | None = None,
    log_probabilities: bool = False,
    max_seconds: float | None = None,
    stop_strings: str | Sequence[str] = (),
    decode: Decode | None = None,
) -> Iterator[NewToken]:
    """What `generate` gives, each token as soon as it is known; arguments and errors as there.

    Spec: [generation.stream][], [generation.held-back][].
    """
    drawing = _Drawing.of(Ending.of(max_new_tokens, stop_token, max_seconds, stop_strings, decode), sampling, log_probabilities)
    batch, _ = _begin(model, prompts, halting, real, backend, seeds, drawing)
    return _go_on(batch, drawing, loops_that_run_out(halting))


@dataclass
class _Drawing:
    """How the tokens of some texts are chosen, and when they end."""

    ending: Ending
    sampling: Sampling
    log_probabilities: bool
    texts: list[list[int]] = field(default_factory=list)
    """Prompts and new tokens, without padding."""
    new: list[list[int]] = field(default_factory=list)
    """The new tokens alone."""
    keys: list[Draw] = field(default_factory=list)

    @classmethod
    def of(cls, ending: Ending, sampling: Sampling, log_probabilities: bool) -> "_Drawing":
        """Settings that have been checked, of no text yet."""
        if not isinstance(sampling, Sampling):
            raise InputError(f"`sampling` must be a looplm.Sampling: got {sampling!r}.")
        return cls(ending, sampling, log_probabilities)

    def choose(self, rows: list[int], logits: Tensor) -> list[int]:
        """The next token of these rows.

        Spec: [generation.seeds][].
        """
        draws = [replace(self.keys[row], step=len(self.new[row])) for row in rows]
        tokens: list[int] = self.sampling.choose(logits, [self.texts[row] for row in rows], draws).tolist()
        return tokens


@torch.inference_mode()
def _begin(
    model: Body,
    prompts: Prompts,
    halting: HaltingRule,
    real: Tensor | None,
    backend: Backend,
    seeds: Sequence[int] | None,
    drawing: _Drawing,
    beams: bool = False,
) -> tuple[Thinker, Choice]:
    """Prompts that have been checked and are about to be read; their texts and keys are noted."""
    if not isinstance(prompts, Tensor):
        if real is not None:
            raise InputError("`real` goes with a tensor of prompts; lists of ids are padded here.")
        prompts, real = (of.to(model.device) for of in pad_left(_listed(prompts, model.config.vocab_size), 0))
    real = torch.ones_like(prompts, dtype=torch.bool) if real is None else real
    if not model.writes:
        model = looped(model, "a search" if beams else "generation")
    _check(model, prompts, real, drawing.ending.max_new_tokens)
    if seeds is None:
        drawing.keys = [Draw(drawing.sampling.seed, f"sample/{row}" if row else "sample") for row in range(len(prompts))]
    else:
        drawing.keys = [Draw(seed, "sample") for seed in whole_numbers("seeds", seeds)]
    if len(drawing.keys) != len(prompts):
        raise InputError(f"`seeds` must be one for each of the {len(prompts)} prompts: got {len(drawing.keys)}.")
    drawing.texts = [row[keep].tolist() for row, keep in zip(prompts, real, strict=True)]
    drawing.new = [[] for _ in drawing.texts]
    answer = torch.zeros_like(real)
    answer[:, -1] = True
    chosen, room = choose(backend, model, halting, beams), drawing.ending.max_new_tokens - 1
    return begin(model, prompts, halting, real=real, answer=answer, room=room, backend=chosen.name), chosen


@torch.inference_mode()
def _go_on(batch: Thinker, drawing: _Drawing, runs_out: float) -> Iterator[NewToken]:
    """New tokens, as they come."""
    while bool(batch.running.any()):  # one view serves all prompts, so no row goes on before the others are read
        batch.advance()
    ready, unfinished, device = list(range(len(drawing.texts))), len(drawing.texts), batch.loops_taken.device
    greedy, said = drawing.sampling.greedy, [""] * unfinished
    while unfinished:
        going_on, found = [], batch.newest(ready)
        logits = None if greedy and not drawing.log_probabilities else batch.logits(ready)
        tokens = [token for token, _ in found]
        if not greedy and logits is not None:
            tokens = drawing.choose(ready, logits)
        scores = logits.double().log_softmax(-1) if drawing.log_probabilities and logits is not None else None
        for i, (row, token, (_, loops)) in enumerate(zip(ready, tokens, found, strict=True)):
            drawing.texts[row].append(token)
            drawing.new[row].append(token)
            reason, text = drawing.ending.look(drawing.new[row])
            said[row], text = text, text[len(said[row]) :]
            score = None if scores is None else float(scores[i, token])
            yield NewToken(row, token, loops, loops >= runs_out, score, reason, text)
            if reason is None:
                going_on.append(row)
        unfinished -= len(ready) - len(going_on)
        if unfinished:
            after = [drawing.texts[row][-1] for row in going_on]
            batch.append(going_on, torch.tensor(after, dtype=torch.int64, device=device))
            batch.advance()
            ready = batch.halted


def _listed(prompts: Sequence[Sequence[int]], vocabulary: int) -> list[list[int]]:
    """Prompts as lists of ids, none of them empty.

    Spec: [generation.refused][].
    """
    try:
        rows = [whole_numbers("prompts", row) for row in prompts]
    except TypeError:
        raise InputError(f"`prompts` must be Int[B T], or a list of ids for each prompt: got {prompts!r}.") from None
    if not rows or not all(rows):
        raise InputError("`prompts` must have at least one token in each row: got an empty one.")
    _check_ids(max(map(max, rows)), min(map(min, rows)), vocabulary)
    return rows


def _check_ids(most: int, least: int, vocabulary: int) -> None:
    if least < 0 or most >= vocabulary:
        raise InputError(f"`prompts` must hold ids from 0 to {vocabulary - 1}: got {least if least < 0 else most}.")


def _check(model: Body, prompts: Tensor, real: Tensor, max_new_tokens: int) -> None:
    """Refuse prompts that no backend can read.

    Spec: [generation.refused][].
    """
    if prompts.dim() != 2 or prompts.dtype != torch.int64 or 0 in prompts.shape:
        given = f"{prompts.dtype} {list(prompts.shape)}"
        raise InputError(f"`prompts` must be Int[B T], int64, with at least one token in each row: got {given}.")
    if real.shape != prompts.shape or real.dtype != torch.bool:
        given = f"{real.dtype} {list(real.shape)}"
        raise InputError(f"`real` must be Bool of the shape of `prompts`, {list(prompts.shape)}: got {given}.")
    if not bool(real[:, -1].all()) or bool((real[:, :-1] & ~real[:, 1:]).any()):
        raise InputError("`real` must be True at a row's last token, and False only on its left: pad prompts on the left.")
    ids = prompts[real]
    _check_ids(int(ids.max()), int(ids.min()), model.config.vocab_size)
    longest = int(real.sum(1).max()) + max_new_tokens - 1
    positions = model.positions if isinstance(model, LoopLM) else None
    room = positions.table.num_embeddings if isinstance(positions, LearnedPositions) else math.inf
    if longest > room:
        raise InputError(
            f"this model has learned positions for {room} tokens: got a text of {longest}, new tokens "
            "included. Give a shorter prompt, or a smaller `max_new_tokens`."
        )


def pad_left(rows: list[list[int]], pad: int) -> tuple[Annotated[Tensor, Int("B T")], Annotated[Tensor, Bool("B T")]]:
    """Prompts of different lengths as one batch, and which of its tokens are real."""
    width = max(map(len, rows))
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    real = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return tokens, real
