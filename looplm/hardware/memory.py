"""The most bytes alive at one time, in a training step and in generation, and the most rows that have room.

A training step is followed from moment to moment. What lives at each follows from what the model's operations keep
(looplm/hardware/formulas.py) and from the tensors that the moment itself makes; spec/hardware.md states the same sums,
and tests hold them equal, and both near to what is counted while models train.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from looplm.config import ModelConfig
from looplm.hardware.formulas import (
    FLOAT32,
    cache_bytes,
    head_kept,
    head_weights,
    hidden_width,
    layer_kept,
    layer_weights,
    loop_kept,
    parameters,
)

INT64 = 8
"""Bytes of a token id, or of an index."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A training step, and the bytes of the tensors that are alive at each of its moments.

    Spec: [hardware.training-peak][].
    """

    model: ModelConfig
    rows: int
    """Of one part of the batch."""
    tokens: int
    """Of one row."""
    loops: int
    reads: int
    """Loops whose logits are read, the last ones."""
    scored_share: float = 1.0
    """Of the tokens, that the loss counts."""
    size: int = FLOAT32
    """Bytes of a number in products of matrices."""
    recompute: bool = False
    """Each layer is computed again in the backward pass."""
    parts: int = 1
    """That the batch is cut into, one after the other."""

    def moments(self) -> dict[str, int]:
        """Bytes alive at each moment that may be the worst, in their order."""
        return {
            "end of the forward pass": self._end_of_forward(),
            "loss": self._loss(),
            "last loop, backwards": self._last_loop(),
            "loop before, backwards": self._loop_before() if self.loops > 1 else 0,
            "optimizer": self._optimizer(),
        }

    def peak(self) -> int:
        """Bytes alive at the worst moment."""
        return max(self.moments().values())

    def _end_of_forward(self) -> int:
        """Logits of each loop and the same stacked; x0 and the last state; trained scores, which all loops share."""
        made = 2 * self._logits + 2 * FLOAT32 * self.model.width + self._trained_scores
        return self._held + self._kept + self._part_tokens * made

    def _loss(self) -> int:
        """Logits and, of the scored tokens, their copies and log-probabilities; or the gradient of them all.

        Log-probabilities are float32, and logits in bfloat16 are cast for them first. On the way back the gradient of the
        scored tokens is put in its place among zeros, which makes that of all logits twice. Between the two, the softmax
        goes backwards and holds three float32 numbers for each of the copies, never more than the first.
        """
        logits, copied = self._logits, self.scored_share
        numbers = copied * self.reads * self.model.vocab_size
        probabilities = logits * (1 + copied) + numbers * (FLOAT32 if self.size == FLOAT32 else FLOAT32 + FLOAT32)
        gradient = 2 * logits + copied * logits
        return self._held + self._kept + int(self._part_tokens * max(probabilities, gradient))

    def _last_loop(self) -> int:
        """The gradient of all logits, while the last reading goes backwards and then the last loop does.

        The head's norm makes three numbers per coordinate for LayerNorm, four for RMSNorm and where layers are computed
        again, and the embedding has its gradient by now.
        """
        vectors = 4 if self.recompute or self.model.norm == "rms" else 3
        head_norm = self._logits + vectors * FLOAT32 * self.model.width
        mlp = self._logits + self._mlp_backwards - head_kept(self.model, self.size)
        made = self._part_tokens * max(head_norm, mlp)
        if self.recompute:
            made = max(made, self._inside_a_loop)
        return self._held + self._kept + made + FLOAT32 * head_weights(self.model)

    def _loop_before(self) -> int:
        """One loop's activations are gone; every weight has a gradient, and the MLP's first gets a second one and their sum."""
        gone = self._part_tokens * loop_kept(self.model, self.tokens, self.size, self.recompute)
        summed = 2 * FLOAT32 * self.model.width * hidden_width(self.model)
        return self._held + self._kept - gone + self._inside_a_loop + self._weight_bytes + summed

    def _optimizer(self) -> int:
        """Weights, gradients, two moments, and one more of each weight that the update makes."""
        return 5 * self._weight_bytes

    @property
    def _part_tokens(self) -> int:
        """Tokens of a part."""
        return self.rows * self.tokens

    @property
    def _weight_bytes(self) -> int:
        return FLOAT32 * sum(parameters(self.model).values())

    @property
    def _held(self) -> int:
        """Weights and two moments; where a part came before, its gradients too."""
        return (3 if self.parts == 1 else 4) * self._weight_bytes

    @property
    def _kept(self) -> int:
        """Everything that the forward pass leaves for the backward pass.

        Of a token: what loops and readings keep, its id and its target, and its row of the mask, which is float32; with
        digit-place, the index of each pair's score instead. Then the weights, where products take them in bfloat16.
        """
        model, size = self.model, self.size
        row = self.tokens * (INT64 if model.positions == "digit-place" else FLOAT32)
        token = self.loops * loop_kept(model, self.tokens, size, self.recompute) + self.reads * head_kept(model, size)
        cast = model.layers * sum(layer_weights(model).values()) + head_weights(model) if size < FLOAT32 else 0
        return self._part_tokens * (token + 2 * INT64 + row) + size * cast

    @property
    def _logits(self) -> int:
        """Of a token, in all loops that are read."""
        return self.reads * self.model.vocab_size * self.size

    @property
    def _trained_scores(self) -> int:
        """Of a token: a float32 score of every token and head with digit-place; the others add a mask alone."""
        return FLOAT32 * self.tokens * self.model.heads if self.model.positions == "digit-place" else 0

    @property
    def _mlp_backwards(self) -> int:
        """Of a token: the gradients of the stream and of the MLP's hidden numbers."""
        return FLOAT32 * self.model.width + self.size * hidden_width(self.model)

    @property
    def _inside_a_loop(self) -> int:
        """What a loop makes on its way back, less what its reading had kept; logits of the loops before have a gradient."""
        model, size = self.model, self.size
        made = self._logits - model.vocab_size * size + self._mlp_backwards - head_kept(model, size)
        if self.recompute:
            made += layer_kept(model, self.tokens, size) + 2 * self._trained_scores
        return self._part_tokens * made


def generation_bytes(model: ModelConfig, rows: int, prompt: int, length: int, loops: int, size: int) -> int:
    """Bytes that generating texts of `length` tokens takes, the first `prompt` of which are given.

    The weights, and for each row the larger of two moments. Its prompt is read: its keys and values, five vectors of the
    stream, the MLP's numbers and logits twice, and float32 masks or scores of all pairs. Or its cache grows: the old one,
    and the new one with room for twice the prompt at least.

    Spec: [hardware.generation-bytes][].
    """
    old = cache_bytes(model, prompt, loops, size)
    mlp = hidden_width(model) + model.mlp_width * (2 if model.mlp == "swiglu" else 1)
    token = size * (5 * model.width + mlp + 2 * model.vocab_size)
    pair = FLOAT32 * (4 * model.heads + 3 if model.positions == "digit-place" else 2)
    reading = old + prompt * (token + prompt * pair)
    room = max(length, 2 * prompt) if length > prompt else 0
    growing = old + cache_bytes(model, room, loops, size)
    return size * sum(parameters(model).values()) + rows * max(reading, growing)


def largest_batch(fits: Callable[[int], bool], limit: int) -> int:
    """The most rows, at most `limit`, that fit; 0 if not even one does.

    Args:
        fits: whether so many rows do; if some do not, more must not either.
        limit: rows.

    Spec: [hardware.largest-batch][].
    """
    return bisect_left(range(1, limit + 1), True, key=lambda rows: not fits(rows))  # how many stand before the first too many
