"""When a token stops thinking.

A rule is asked after each loop, for every token at once, and answers from what the loops up to it gave at the token
and at those before it, so a decision never looks at a later token. The model freezes the tokens for which it says yes.
A rule of your own needs what `HaltingRule` asks for: a `max_loops`, and to be callable on `Evidence`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import torch
from torch import Tensor

from looplm.config import HaltingConfig, RuleConfig
from looplm.errors import InputError
from looplm.shapes import Bool, Float, Int


@dataclass(frozen=True)
class Evidence:
    """What a rule may look at after a loop. Entries of tokens that are not active stand still, or mean nothing."""

    l: Annotated[Tensor, Int("B 1")]
    """The loop that has just run in each row, from 1."""
    h: Annotated[Tensor, Float("B T D")]
    """State after loop l."""
    change: Annotated[Tensor, Float("B T")]
    r"""$\lVert h_l - h_{l-1} \rVert / \lVert h_l \rVert$."""
    guess: Annotated[Tensor, Int("B T")]
    """The most likely next token after loop l."""
    confidence: Annotated[Tensor, Float("B T")]
    """Its probability."""
    previous_guess: Annotated[Tensor, Int("B T")]
    """The guess after loop l - 1; -1 at loop 1."""
    previous_confidence: Annotated[Tensor, Float("B T")]
    """The confidence after loop l - 1; 0 at loop 1."""
    answer: Annotated[Tensor, Bool("B T")]
    """Tokens from which an answer token is read; the others are the prompt's."""
    active: Annotated[Tensor, Bool("B T")]
    """Tokens that ran loop l; the others have halted, or are padding."""
    waited_for: Annotated[Tensor, Int("B 1")]
    """Most loops that an answer token of an earlier chunk took; 0 if there was none."""
    halt_prob: Annotated[Tensor, Float("B T")] | None = None
    """What the model's gate gives, if it has one."""


def observe(
    l: int | Annotated[Tensor, Int("B 1")],
    h: Annotated[Tensor, Float("B T D")],
    before: Annotated[Tensor, Float("B T D")],
    logits: Annotated[Tensor, Float("B T V")],
    previous_guess: Annotated[Tensor, Int("B T")],
    previous_confidence: Annotated[Tensor, Float("B T")],
    answer: Annotated[Tensor, Bool("B T")],
    active: Annotated[Tensor, Bool("B T")],
    waited_for: Annotated[Tensor, Int("B 1")] | None = None,
    halt_prob: Annotated[Tensor, Float("B T")] | None = None,
) -> Evidence:
    """What loop l gave, for a rule to look at; `before` is the state that it started from.

    Spec: [architecture.guess][].
    """
    best = logits.max(-1)  # architecture.guess: of equals, torch gives the first
    return Evidence(
        l=torch.full_like(best.indices[:, :1], l) if isinstance(l, int) else l,
        h=h,
        change=torch.linalg.vector_norm(h - before, dim=-1) / torch.linalg.vector_norm(h, dim=-1),
        guess=best.indices,
        confidence=(best.values - logits.logsumexp(-1)).exp(),
        previous_guess=previous_guess,
        previous_confidence=previous_confidence,
        answer=answer,
        active=active,
        waited_for=torch.zeros_like(best.indices[:, :1]) if waited_for is None else waited_for,
        halt_prob=halt_prob,
    )


class HaltingRule(Protocol):
    """Decides, after each loop, which tokens halt."""

    @property
    def max_loops(self) -> int:
        """The loop after which every token halts."""
        ...

    def __call__(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """True for the tokens that halt now."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Every token runs exactly `max_loops` loops; the other rules decide what happens before that.

    Spec: [halting.fixed][], [halting.bounds][], [halting.in-order][].
    """

    max_loops: int
    min_loops: int = 1
    in_order: bool = field(default=False, kw_only=True)
    """Whether an answer token waits until all answer tokens before it have halted."""

    def __call__(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens that are ready after `min_loops` loops; all, at the last loop."""
        ready = (seen.l >= self.min_loops) & self.ready(seen)
        if self.in_order:
            waiting = (seen.answer & seen.active & ~ready).cummax(1).values
            ready = ready & (~seen.answer | (~waiting & (seen.l >= seen.waited_for)))
        return ready | (seen.l >= self.max_loops)

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens that the rule would halt, were there no bounds: none."""
        return torch.zeros_like(seen.active)


@dataclass(frozen=True)
class Confidence(Fixed):
    """A token is ready once the probability of its most likely next token reaches the threshold.

    Source: Wait-to-Think is the LoopLM plan's name for a low threshold in the prompt and a high one in the answer.
    Spec: [halting.confidence][], [halting.wait-to-think][], [halting.not-known-yet][].
    """

    threshold: float = 0.99
    unknown_id: int | None = None
    """The token that says "not known yet", for models that are trained to say so."""

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Confident tokens."""
        confident = seen.confidence >= self.threshold
        return confident if self.unknown_id is None else confident & (seen.guess != self.unknown_id)


@dataclass(frozen=True)
class TwoEqualArgmaxes(Fixed):
    """A token is ready once its most likely next token is the same after two successive loops.

    Spec: [halting.two-equal-argmaxes][].
    """

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens whose two newest guesses agree."""
        return seen.guess == seen.previous_guess


@dataclass(frozen=True)
class StateChange(Fixed):
    """A token is ready once a loop changes its state by less than `epsilon`, relative to the state's norm.

    Spec: [halting.state-change][].
    """

    epsilon: float = 0.1

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens near a fixed point of the loop."""
        return seen.change < self.epsilon


@dataclass(frozen=True)
class PrefixStability(Fixed):
    """An answer token halts once it is settled, and all answer tokens before it are or have halted.

    Settled: two equal guesses, with confidence at both of at least `threshold`, or at a state that changes by less
    than `epsilon`. Made for answers given in parallel, where a far place is confidently wrong until the carry comes.

    Spec: [halting.prefix-stability][].
    """

    threshold: float = 0.9
    epsilon: float = 0.03
    in_order: bool = field(default=True, kw_only=True)

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Settled tokens."""
        confident = torch.minimum(seen.confidence, seen.previous_confidence) >= self.threshold
        return (seen.guess == seen.previous_guess) & (confident | (seen.change < self.epsilon))


@dataclass(frozen=True)
class Gate(Fixed):
    """A token is ready once the model's learned gate gives at least the threshold.

    Spec: [halting.gate][].
    """

    threshold: float = 0.5

    def ready(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Tokens that the gate would halt."""
        if seen.halt_prob is None:
            raise InputError("the halting rule 'gate' needs a model with a trained gate; choose another rule, or such a model.")
        return seen.halt_prob >= self.threshold


@dataclass(frozen=True)
class ByRole:
    """One rule for the answer, another for the prompt.

    Spec: [halting.roles][].
    """

    answer: HaltingRule
    prompt: HaltingRule

    @property
    def max_loops(self) -> int:
        """The larger of both."""
        return max(self.answer.max_loops, self.prompt.max_loops)

    def __call__(self, seen: Evidence) -> Annotated[Tensor, Bool("B T")]:
        """Each token as its role's rule says."""
        return torch.where(seen.answer, self.answer(seen), self.prompt(seen))


def make_halting(config: HaltingConfig) -> HaltingRule:
    """The rules that the config names; without one for the prompt, its tokens run all of the answer's `max_loops`."""
    prompt = _make_rule(config.prompt) if config.prompt else Fixed(config.max_loops)
    return ByRole(_make_rule(config), prompt)


def _make_rule(config: RuleConfig) -> HaltingRule:
    rules: dict[str, Callable[..., HaltingRule]] = {
        "fixed": Fixed,
        "confidence": Confidence,
        "two-equal-argmaxes": TwoEqualArgmaxes,
        "state-change": StateChange,
        "prefix-stability": PrefixStability,
        "gate": Gate,
    }
    return rules[config.rule](config.max_loops, **config.settings())
