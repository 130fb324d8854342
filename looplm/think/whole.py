"""Thinking of a body that thinks about a whole row at once, such as the slots of the Connection Transformer."""

from typing import Annotated

import torch
from torch import Tensor

from looplm.errors import InputError
from looplm.loop.halting import ByRole, HaltingRule, name_of
from looplm.loop.halting.fixed import Fixed
from looplm.models.body import Body
from looplm.shapes import Bool, Float, Int


class WholeThinking:
    """Rows that think to their end in one advance; no token can be appended.

    Raises:
        InputError: if the rule is another than `fixed`, or new tokens are wanted.

    Spec: [architecture.body][].
    """

    def __init__(
        self,
        model: Body,
        tokens: Annotated[Tensor, Int("B T")],
        halting: HaltingRule,
        *,
        real: Annotated[Tensor, Bool("B T")] | None = None,
        answer: Annotated[Tensor, Bool("B T")] | None = None,
        room: int = 0,
    ) -> None:
        rules = ByRole.of(halting)
        if not (isinstance(rules.answer, Fixed) and isinstance(rules.prompt, Fixed)):
            raise InputError(
                f"the body {model.config.body!r} halts after a fixed number of loops: got {name_of(rules.answer)!r} and, for "
                f"the prompt, {name_of(rules.prompt)!r}; use the halting rule 'fixed' for both."
            )
        if room:
            raise InputError(f"the body {model.config.body!r} answers in place: it writes no new tokens.")
        self._model, self._asked = model, (tokens, halting, real, answer)
        self.running = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        self.guess, self.loops_taken = torch.full_like(tokens, -1), torch.zeros_like(tokens)
        self.halted: list[int] = []
        self.calls = 0
        self.states = torch.empty(0)
        """Float[B T D]: what was read at each token in the end."""

    @property
    def block_evaluations(self) -> Annotated[Tensor, Float("B")]:
        """Steps of each row."""
        return self.loops_taken.amax(1).float().cpu()

    def advance(self) -> None:
        """All loops of all rows."""
        tokens, halting, real, answer = self._asked
        thoughts = self._model.think(tokens, halting, real=real, answer=answer)
        self.guess, self.loops_taken, self.states = thoughts.logits.argmax(-1), thoughts.loops_taken, thoughts.h
        self.running, self.calls = torch.zeros_like(self.running), self.calls + int(self.loops_taken.max())

    def append(self, rows: list[int], tokens: Tensor) -> None:
        """Refused: there is no room."""
        raise InputError(f"the body {self._model.config.body!r} answers in place: it writes no new tokens.")

    def logits(self, rows: list[int]) -> Tensor:
        """Refused: nothing is drawn from them."""
        raise InputError(f"the body {self._model.config.body!r} answers in place: it writes no new tokens.")

    def newest(self, rows: list[int]) -> list[tuple[int, int]]:
        """The last column of these rows."""
        return [(int(self.guess[row, -1]), int(self.loops_taken[row, -1])) for row in rows]
