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
    """Rows that think to their end in one advance; a body that writes may be given one more token, and reads all again.

    Raises:
        InputError: if the rule is another than `fixed`, or new tokens are wanted of a body that answers in place.

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
        if room and not model.writes:
            raise InputError(f"the body {model.config.body!r} answers in place: it writes no new tokens.")
        self._model, self._halting = model, halting
        everything = torch.ones_like(tokens, dtype=torch.bool)
        self._tokens = tokens
        self._real, self._answer = (everything if of is None else of for of in (real, answer))
        self.running = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        self.guess, self.loops_taken = torch.full_like(tokens, -1), torch.zeros_like(tokens)
        self.halted: list[int] = list(range(len(tokens)))
        self.calls = 0
        self.states = torch.empty(0)
        """Float[B T D]: what was read at each token in the end."""
        self._work = torch.zeros(len(tokens))

    @property
    def block_evaluations(self) -> Annotated[Tensor, Float("B")]:
        """Loops of each row; one that is written is read again for each token."""
        return self._work

    def advance(self) -> None:
        """All loops of all rows.

        Spec: [seq2seq.writing][].
        """
        thoughts = self._model.think(self._tokens, self._halting, real=self._real, answer=self._answer)
        self.guess, self.loops_taken, self.states = thoughts.logits.argmax(-1), thoughts.loops_taken, thoughts.h
        loops = self.loops_taken.amax(1)
        self._work += (loops * self.running).float().cpu()
        self.running, self.calls = torch.zeros_like(self.running), self.calls + int(loops.max())

    def append(self, rows: list[int], tokens: Tensor) -> None:
        """Give rows one more token; all that it stands in is read again.

        Raises:
            InputError: if the body answers in place.

        Spec: [seq2seq.writing][].
        """
        if not self._model.writes:
            raise InputError(f"the body {self._model.config.body!r} answers in place: it writes no new tokens.")
        column = torch.zeros_like(self._tokens[:, :1])
        there = torch.zeros_like(self._real[:, :1])
        column[rows, 0], there[rows, 0] = tokens.to(column), True
        self._tokens = torch.cat((self._tokens, column), 1)
        self._real, self._answer = (torch.cat((of, there), 1) for of in (self._real, self._answer))
        self.running[rows], self.halted = True, rows

    def reorder(self, rows: Annotated[Tensor, Int("R")]) -> None:
        """Become copies of these rows, as many as are given.

        Spec: [generation.beam-memory][].
        """
        self._tokens, self._real, self._answer, self.running, self.guess, self.loops_taken, self.states, self._work = (
            of[rows.to(of.device)]
            for of in (
                self._tokens,
                self._real,
                self._answer,
                self.running,
                self.guess,
                self.loops_taken,
                self.states,
                self._work,
            )
        )

    def logits(self, rows: list[int]) -> Annotated[Tensor, Float("R V")]:
        """What the newest tokens of rows give each next token."""
        return self._model.logits(self.states[rows, self._last(rows)])

    def newest(self, rows: list[int]) -> list[tuple[int, int]]:
        """What comes after the last token of these rows, and the loops that it took."""
        at = self._last(rows)
        return list(zip(self.guess[rows, at].tolist(), self.loops_taken[rows, at].tolist(), strict=True))

    def _last(self, rows: list[int]) -> Annotated[Tensor, Int("R")]:
        """Columns of the last real token of rows."""
        return self._real[rows].long().cumsum(1).argmax(1)
