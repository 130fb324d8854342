"""Which code runs the loop: this package's own torch, the fused kernels in Triton, or the kernels' plain reference.

The choice is made here and nowhere else. Every backend thinks about rows of tokens and has the face of
`looplm.think.batched.Thinking`, which is the torch one; so who generates need not know which one it has.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, Protocol

import torch
from looplm_kernels.loop import loop
from looplm_kernels.loop_grid import loop_grid
from looplm_kernels.loop_grid import serves as grid_serves
from looplm_kernels.state import Rule, empty
from looplm_kernels.weights import Places, Weights
from torch import Tensor

from looplm.errors import InputError
from looplm.layers.block import Layer
from looplm.layers.positions import LearnedPositions, PlacePositions, RotaryPositions
from looplm.loop.halting import Bounded, ByRole, HaltingRule
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.prefix_stability import PrefixStability
from looplm.loop.halting.state_change import StateChange
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.loop.work import block_evaluations
from looplm.models.body import Body
from looplm.models.looped import LoopLM, is_looped, looped
from looplm.shapes import Bool, Float, Int
from looplm.think.batched import Thinking
from looplm.think.whole import WholeThinking

Backend = Literal["auto", "torch", "triton", "reference"]
GRID_WINS = ("NVIDIA H200",)
"""GPUs on which docs/data/bench-gpu.json measured kernel B to be faster than kernel A wherever both ran."""


class Thinker(Protocol):
    """Rows of tokens that think; see Thinking."""

    calls: int

    @property
    def running(self) -> Tensor:
        """Bool[B]: rows with a token that still thinks."""
        ...

    @property
    def guess(self) -> Tensor:
        """The most likely next token of each token."""
        ...

    @property
    def loops_taken(self) -> Tensor:
        """Of each token."""
        ...

    @property
    def block_evaluations(self) -> Tensor:
        """Float[B]: work of each row so far."""
        ...

    def advance(self) -> None:
        """Think on, by one loop or to the end."""
        ...

    def append(self, rows: list[int], tokens: Tensor) -> None:
        """Give rows one more token."""
        ...

    @property
    def halted(self) -> list[int]:
        """Rows whose newest token halted in the last advance."""
        ...

    def newest(self, rows: list[int]) -> list[tuple[int, int]]:
        """What comes after the newest tokens of rows, and the loops that each took."""
        ...

    def logits(self, rows: list[int]) -> Tensor:
        """Float[R V]: what the newest tokens of rows, all halted, give each next token."""
        ...


@dataclass(frozen=True)
class Choice:
    """Which backend runs, and why not the fused one."""

    name: str
    why: str = ""


def choose(asked: Backend, model: Body, halting: HaltingRule, beams: bool = False) -> Choice:
    """The backend that will run; with beams, one that can reorder them.

    Raises:
        InputError: if one was asked for by name and cannot run; it says why.

    Spec: [kernels.choice][], [generation.beam-refused][].
    """
    if asked == "torch":
        return Choice("torch", "it was asked for")
    if not is_looped(model):
        if asked == "auto":
            return Choice("torch", f"the kernels do not know the body {model.config.body!r}")
        model = looped(model, f"the backend {asked!r}")
    problem = _problem_of_model(model) or ("" if _as_kernel_rule(halting) else "the kernels do not know this halting rule")
    if beams:
        problem = problem or "the kernels cannot reorder the beams of a search"
    if asked != "reference":
        weight = model.embedding.weight
        interpreted = asked == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
        if not weight.is_cuda and not interpreted:
            problem = f"the fused kernels need a CUDA device, and the model is on {weight.device}"
        elif weight.dtype.itemsize > 4:
            problem = problem or f"the fused kernels compute in float32, and the model is in {weight.dtype}"
    if not problem:
        return Choice("triton" if asked == "auto" else asked)
    if asked == "auto":
        return Choice("torch", problem)
    raise InputError(f"the backend {asked!r} cannot run this: {problem}. Use 'torch', or 'auto' for the fastest that can.")


def begin(
    model: Body,
    tokens: Annotated[Tensor, Int("B T")],
    halting: HaltingRule,
    *,
    real: Annotated[Tensor, Bool("B T")] | None = None,
    answer: Annotated[Tensor, Bool("B T")] | None = None,
    room: int = 0,
    backend: str = "torch",
) -> Thinker:
    """Rows that think on the backend of this name, as `choose` gave it; arguments as for Thinking."""
    if not is_looped(model):
        return WholeThinking(model, tokens, halting, real=real, answer=answer, room=room)
    if backend == "torch":
        return Thinking(model, tokens, halting, real=real, answer=answer, room=room)
    return KernelThinking(model, tokens, halting, real=real, answer=answer, room=room, backend=backend)


class KernelThinking:
    """Thinking, by the kernels: an `advance` runs every row to the end of its newest token, on the device.

    Spec: [kernels.backends][].
    """

    def __init__(
        self,
        model: LoopLM,
        tokens: Annotated[Tensor, Int("B T")],
        halting: HaltingRule,
        *,
        real: Annotated[Tensor, Bool("B T")] | None = None,
        answer: Annotated[Tensor, Bool("B T")] | None = None,
        room: int = 0,
        backend: str = "triton",
    ) -> None:
        known = _as_kernel_rule(halting)
        assert known is not None, "`choose` has asked"
        real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
        answer = torch.ones_like(real) if answer is None else answer
        self._model, self._rule, self._backend = model, known.rule, backend
        self._weights = kernel_weights(model)
        self._rows = torch.arange(len(tokens), device=tokens.device)
        self._start, self._end = torch.zeros_like(self._rows).int(), real.sum(1).int()
        # where in its text the token of a column stands: padding is left out, and what comes later follows
        later = self._end[:, None] + torch.arange(room, device=tokens.device)
        self._position = torch.cat(((real.cumsum(1) - 1).masked_fill(~real, -1), later), 1)
        self._advanced: list[int] = []
        longest = int(self._end.max()) + room
        most = self._weights.learned.shape[0] if self._weights.learned is not None else longest
        self._most = most
        self._state = state = empty(self._weights, len(tokens), min(longest, most), self._rule.max_loops)
        row, column = real.nonzero(as_tuple=True)
        at = self._position[row, column]
        state.tokens[row, at] = tokens[row, column].int()
        is_answer = torch.ones_like(state.tokens, dtype=torch.bool)  # and so is all that comes later
        is_answer[row, at] = answer[row, column]
        state.ask(torch.where(is_answer, known.answer_threshold, known.prompt_threshold))
        state.limit.copy_(torch.where(is_answer, known.answer_loops, known.prompt_loops))
        self._decode: Callable[..., None] = partial(loop, across=True)
        if backend == "triton" and tokens.is_cuda and torch.cuda.get_device_name(tokens.device) in GRID_WINS:
            self._decode = loop_grid if grid_serves(state, known.rule) else self._decode
        self.calls = 0
        """Launches, each for all rows that were still thinking."""

    @property
    def running(self) -> Annotated[Tensor, Bool("B")]:
        """Rows with a token that still thinks."""
        return self._start < self._end

    @property
    def guess(self) -> Tensor:
        """The most likely next token of each column's token; -1 where there is none yet."""
        return self._by_column(self._state.next_token, -1)

    @property
    def loops_taken(self) -> Tensor:
        """Of each column's token; 0 where there is none yet."""
        return self._by_column(self._state.loops_taken, 0)

    @property
    def block_evaluations(self) -> Annotated[Tensor, Float("B")]:
        """Work of each row so far, as halting.block-evaluations counts it."""
        position = torch.arange(self._state.room, device=self._rows.device)
        taken = torch.where(position < self._end[:, None], self._state.loops_taken, 0).long()
        return block_evaluations(taken, self._model.block.kv_share).cpu()

    @torch.no_grad()
    def advance(self) -> None:
        """One launch: every new token, through all its loops.

        Spec: [kernels.which][].
        """
        decoding = self._backend == "triton" and self.calls > 0  # then there is at most one new token a row
        self._advanced = self.running.nonzero()[:, 0].tolist()
        run = self._decode if decoding else loop
        run(self._weights, self._state, self._start, self._end, self._rule, backend=self._backend)
        self._start = self._end.clone()
        self.calls += 1

    def append(self, rows: list[int], tokens: Annotated[Tensor, Int("R")]) -> None:
        """Give rows in which all tokens have halted one more token, of the answer, to think about."""
        at = self._end[rows].long()
        if self._weights.learned is not None and rows and int(at.max()) >= self._most:
            raise ValueError(f"this model has learned positions for {self._most} tokens: got a text of {int(at.max()) + 1}.")
        self._state.tokens[rows, at] = tokens.int()
        self._end[rows] += 1

    @property
    def halted(self) -> list[int]:
        """Rows whose newest token halted in the last advance: those that had one."""
        return self._advanced

    def newest(self, rows: list[int]) -> list[tuple[int, int]]:
        """What comes after the newest tokens of rows, and the loops that each took."""
        at = self._start[rows].long() - 1
        both = torch.stack((self._state.next_token[rows, at], self._state.loops_taken[rows, at]))
        return [(token, loops) for token, loops in both.T.tolist()]

    @torch.no_grad()
    def logits(self, rows: list[int]) -> Annotated[Tensor, Float("R V")]:
        """What the newest tokens of rows, all halted, give each next token."""
        return self._model.logits(self._state.h[rows, self._start[rows].long() - 1].to(self._model.embedding.weight.dtype))

    def _by_column(self, of: Tensor, nothing: int) -> Annotated[Tensor, Int("B S")]:
        read = (self._position >= 0) & (self._position < self._start[:, None])
        return torch.where(read, of.gather(1, self._position.clamp(0, self._state.room - 1)), nothing).long()


_KNOWN = (Fixed, Confidence, TwoEqualArgmaxes, StateChange, PrefixStability)


@dataclass(frozen=True)
class _KernelRule:
    """A halting rule in the kernels' words."""

    rule: Rule
    answer_threshold: float
    prompt_threshold: float
    answer_loops: int
    prompt_loops: int


def _as_kernel_rule(halting: HaltingRule) -> _KernelRule | None:
    """The rule in the kernels' words; None if they have none for it.

    Spec: [kernels.halts][].
    """
    roles = ByRole.of(halting)
    answer, prompt = roles.answer, roles.prompt
    if PrefixStability in (type(answer), type(prompt)) and (type(answer), type(prompt)) != (PrefixStability, Fixed):
        return None  # a kernel knows the answer's tokens, which wait for each other, by their finite thresholds
    thresholds: list[float] = []
    asked: set[Rule] = set()
    for role in (answer, prompt):
        if not isinstance(role, Bounded) or type(role) not in _KNOWN:
            return None  # a rule of one's own may be a subclass that decides otherwise
        if role.in_order != (type(role) is PrefixStability) or (isinstance(role, Confidence) and role.unknown_id is not None):
            return None
        if type(role) is Fixed:
            thresholds.append(math.inf)
            continue
        thresholds.append(role.threshold if isinstance(role, Confidence | PrefixStability) else 0.0)
        kernel_rule = Rule(
            halting.max_loops,
            min_loops=min(role.min_loops, halting.max_loops),
            agree=isinstance(role, TwoEqualArgmaxes),
            epsilon=role.epsilon if isinstance(role, StateChange | PrefixStability) else math.inf,
            prefix=isinstance(role, PrefixStability),
        )
        asked.add(kernel_rule)
    if len(asked) > 1:
        return None  # a launch has one of them
    rule = asked.pop() if asked else Rule(halting.max_loops)
    return _KernelRule(rule, thresholds[0], thresholds[1], answer.max_loops, prompt.max_loops)


def _problem_of_model(model: LoopLM) -> str:
    """Why the kernels cannot run the model; empty if they can."""
    config = model.config
    if config.layers != 1:
        return f"the kernels know blocks of one layer, and this model's has {config.layers}"
    layer = model.block.layers[0]
    assert isinstance(layer, Layer)
    if layer.attention.qkv.weight.shape[0] != 3 * config.width:
        return "the kernels know attention in which every query head has its own keys and values"
    if (config.norm_epsilon, config.rope_theta) != (1e-6, 10_000.0):
        return "the kernels know `norm_epsilon = 1e-6` and `rope_theta = 10_000`"
    if config.place_strict:
        return "the kernels know places without `place_strict`"
    return ""


def kernel_weights(model: LoopLM) -> Weights:
    """The model as the kernels take it, without a copy where torch needs none.

    Raises:
        InputError: if the kernels cannot run it.

    Spec: [kernels.reference][].
    """
    if problem := _problem_of_model(model):
        raise InputError(f"{problem}.")
    config, positions = model.config, model.positions
    layer = model.block.layers[0]
    assert isinstance(layer, Layer)
    norms = (layer.attention_norm, layer.mlp_norm, model.state_norm if config.state_norm else layer.mlp_norm, model.head_norm)
    mlp = dict(layer.mlp.named_parameters())
    gate, up = mlp["gate_and_up.weight"].chunk(2) if config.mlp == "swiglu" else (None, mlp["up.weight"])
    embedding: Tensor = model.embedding.weight
    signals = model.loop_signal.table
    weights = Weights(
        embedding=embedding,
        gains=torch.stack([norm.get_parameter("weight") for norm in norms]),
        shifts=torch.stack([norm.get_parameter("bias") for norm in norms]) if config.norm == "layer" else None,
        qkv=layer.attention.qkv.weight,
        out=layer.attention.out.weight,
        up=up,
        gate=gate,
        down=mlp["down.weight"],
        signals=torch.zeros_like(embedding[:1]) if signals is None else signals,
        heads=config.heads,
        every_loop=config.injection == "every",
        state_norm=config.state_norm,
        rope=isinstance(positions, RotaryPositions),
        learned=positions.table.weight if isinstance(positions, LearnedPositions) else None,
        places=Places(positions.table * positions.scale, positions.has_place, positions.reach, positions.window)
        if isinstance(positions, PlacePositions)
        else None,
    )
    return weights
