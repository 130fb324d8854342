"""Body: what thinks. The package trains, saves, loads and tests bodies by this face alone.

A body is a file in looplm/models, or a class of one's own that a recipe names as `package.module:Class`: a module whose
weights follow from its settings, a frozen dataclass that a recipe's table `[model]` fills.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from looplm.loop.halting import ByRole, HaltingRule
from looplm.shapes import Bool, Float, Int

Hook = Callable[[int, Tensor], Tensor | None]
"""Told the loop and the state after it, Float[B T D]; may give another state to go on with."""
Noise = Callable[[int, Tensor], Tensor]
"""Told the loop and the state after it, Float[B T D]; gives the state with noise added."""


@dataclass(frozen=True)
class Thoughts:
    """What thinking about a chunk of tokens gave."""

    h: Annotated[Tensor, Float("B T D")]
    """Each token's state when it halted."""
    logits: Annotated[Tensor, Float("B T V")]
    """Read from that state: the scores of each next token."""
    loops_taken: Annotated[Tensor, Int("B T")]
    """Loops in which the token was active; 0 for padding."""
    logits_per_loop: Annotated[Tensor, Float("L B T V")] | None = None
    """For a trace: the logits after each loop; a halted token's no longer change."""
    h_per_loop: Annotated[Tensor, Float("L B T D")] | None = None
    """The same for the states."""


@dataclass(frozen=True)
class State:
    """Where a pass through the loop stands."""

    h: Annotated[Tensor, Float("B T D")]
    loops: int
    """Loops run so far."""


class BodySettings(Protocol):
    """Sizes and choices of one body; with the weights, all that is needed to run it."""

    @property
    def body(self) -> str:
        """The name of its file in looplm/models, or `package.module:Class`."""
        ...

    @property
    def vocab_size(self) -> int:
        """Tokens that it can read and say."""
        ...

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that a body of these settings exercises."""
        ...


class Body(nn.Module, ABC):
    """What thinks: tensors in, tensors out; nothing of tasks, recipes or files."""

    settings: ClassVar[Any]
    """The dataclass of its settings."""
    config: Any
    writes: ClassVar[bool] = False
    """Whether it can write an answer, token after token, though it thinks about a whole row at once."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def reach(self) -> int | None:
        """Places that news can travel in one loop; None: any distance."""
        return None

    @abstractmethod
    def decayed(self) -> list[nn.Parameter]:
        """Parameters under weight decay."""

    def rates(self) -> dict[nn.Parameter, float]:
        """Parameters whose learning rate is another multiple of the schedule's than 1."""
        return {}

    def blocks(self) -> list[nn.Module]:
        """The units that may be compiled, computed again in the backward pass, or sharded."""
        return []

    @abstractmethod
    def states(
        self, tokens: Annotated[Tensor, Int("B T")], num_loops: int, start: State | None = None, noise: Noise | None = None
    ) -> Iterator[Tensor]:
        """What can be read at each token after each of so many loops, Float[B T D]; differentiable, for training.

        Args:
            tokens: ids.
            num_loops: at least 1.
            start: the state to go on from; by default the first.
            noise: adds noise to the state after each loop; by default there is none.
        """

    def forward(self, tokens: Annotated[Tensor, Int("B T")], num_loops: int) -> Annotated[Tensor, Float("L B T V")]:
        """The logits after each of so many loops."""
        return torch.stack([self.logits(h) for h in self.states(tokens, num_loops)])

    def settle(self, tokens: Annotated[Tensor, Int("B T")], num_loops: int, noise: Noise | None = None) -> State:
        """The state after `num_loops` loops, to start another pass from."""
        *_, h = self.states(tokens, num_loops, noise=noise)
        return State(h, num_loops)

    @abstractmethod
    def logits(self, h: Annotated[Tensor, Float("... D")]) -> Annotated[Tensor, Float("... V")]:
        """Logits of each next token, from what can be read at it."""

    @abstractmethod
    def think(
        self,
        tokens: Annotated[Tensor, Int("B T")],
        halting: HaltingRule,
        *,
        real: Annotated[Tensor, Bool("B T")] | None = None,
        answer: Annotated[Tensor, Bool("B T")] | None = None,
        keep_every_loop: bool = False,
        hook: Hook | None = None,
    ) -> Thoughts:
        """Think until the halting rule says stop: the plain way.

        Args:
            tokens: ids.
            halting: when a token stops.
            real: False for padding; by default there is none.
            answer: True for tokens from which an answer token is read; by default all.
            keep_every_loop: also give the logits and states after each loop.
            hook: told the state after each loop, and may change it.
        """


class WholeBody(Body):
    """A body that thinks about a whole row at once: it takes all its loops, whatever it has found."""

    @torch.no_grad()
    def think(
        self,
        tokens: Annotated[Tensor, Int("B T")],
        halting: HaltingRule,
        *,
        real: Annotated[Tensor, Bool("B T")] | None = None,
        answer: Annotated[Tensor, Bool("B T")] | None = None,
        keep_every_loop: bool = False,
        hook: Hook | None = None,
    ) -> Thoughts:
        """All loops of the answer's rule; tokens from which no answer is read take none.

        Raises:
            InputError: if a row is none that the body can read.
        """
        tokens = tokens if real is None else tokens.where(real, self.config.pad_id)
        real = tokens != self.config.pad_id if real is None else real
        loops, per_loop = ByRole.of(halting).answer.max_loops, []
        for l, h in enumerate(self.states(tokens, loops), 1):
            patched = hook(l, h) if hook else None
            per_loop.append(h if patched is None else patched)
        taken = torch.where(real if answer is None else real & answer, loops, 0)
        if not keep_every_loop:
            return Thoughts(per_loop[-1], self.logits(per_loop[-1]), taken)
        h = torch.stack(per_loop)
        return Thoughts(per_loop[-1], self.logits(per_loop[-1]), taken, self.logits(h), h)


class StoryBody(WholeBody):
    """A body whose rows are stories, each with a question, whose answer can be read at any token."""
