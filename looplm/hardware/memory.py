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
    INT64,
    cache_bytes,
    head_kept,
    head_weights,
    hidden_width,
    layer_kept,
    layer_weights,
    loop_kept,
    parameters,
)


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
            "loss, backwards": self._loss(),
            "last loop, backwards": self._last_loop(),
            "loop before, backwards": self._loop_before() if self.loops > 1 else 0,
            "optimizer": self._optimizer(),
        }

    def peak(self) -> int:
        """Bytes alive at the worst moment."""
        return max(self.moments().values())

    def _end_of_forward(self) -> int:
        """The last reading's logits, cast where products are in bfloat16; x0 and the last state; trained scores."""
        copies = 1 if self.size == FLOAT32 else 3
        made = self._logits * self.size * copies + 2 * FLOAT32 * self.model.width + self._trained_scores
        return int(self._held + self._kept + self._part_tokens * made)

    def _loss(self) -> int:
        """The last reading goes backwards: gradients of log-probabilities and of logits, or of logits and inside the norm."""
        of_logits = FLOAT32 if self.size == FLOAT32 else FLOAT32 + self.size
        norm = 4 * FLOAT32 * self.model.width * self.scored_share
        made = max(2 * FLOAT32 * self._logits, of_logits * self._logits + norm)
        return int(self._held + self._kept + self._part_tokens * made)

    def _last_loop(self) -> int:
        """The last loop goes backwards; of its reading, the gradients of its state and of the embedding are left."""
        made = self._part_tokens * (self._mlp_backwards - self._head + FLOAT32 * self.model.width)
        if self.recompute:
            made = max(made, self._inside_a_loop)
        return int(self._held + self._kept + made + FLOAT32 * head_weights(self.model))

    def _loop_before(self) -> int:
        """One loop's activations are gone; every weight has a gradient, and the MLP's first gets a second one and their sum."""
        gone = self._part_tokens * loop_kept(self.model, self.tokens, self.size, self.recompute)
        summed = 2 * FLOAT32 * self.model.width * hidden_width(self.model)
        return int(self._held + self._kept - gone + self._inside_a_loop + self._weight_bytes + summed)

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
    def _kept(self) -> float:
        """Everything that the forward pass leaves for the backward pass.

        Of a token: what loops and readings keep, its id, its targets, the first one and one for each reading, and its row
        of the mask, which is float32; with places, the index of each pair's score instead. Then the weights, where
        products take them in bfloat16.
        """
        model, size = self.model, self.size
        row = self.tokens * (INT64 if model.positions == "place" else FLOAT32)
        token = self.loops * loop_kept(model, self.tokens, size, self.recompute) + self.reads * (self._head + INT64)
        cast = model.layers * sum(layer_weights(model).values()) + head_weights(model) if size < FLOAT32 else 0
        return self._part_tokens * (token + 2 * INT64 + row) + size * cast

    @property
    def _head(self) -> float:
        """Of a token: what a reading keeps, if the token is scored."""
        return self.scored_share * head_kept(self.model, self.size)

    @property
    def _logits(self) -> float:
        """Numbers of a token in one reading."""
        return self.scored_share * self.model.vocab_size

    @property
    def _trained_scores(self) -> int:
        """Of a token: a float32 score of every token and head with places; the others add a mask alone."""
        return FLOAT32 * self.tokens * self.model.heads if self.model.positions == "place" else 0

    @property
    def _mlp_backwards(self) -> int:
        """Of a token: the gradients of the stream and of the MLP's hidden numbers."""
        return FLOAT32 * self.model.width + self.size * hidden_width(self.model)

    @property
    def _inside_a_loop(self) -> float:
        """What a loop makes on its way back, less what its reading had kept."""
        made = self._mlp_backwards - self._head
        if self.recompute:
            made += layer_kept(self.model, self.tokens, self.size) + 2 * self._trained_scores
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
    pair = FLOAT32 * (4 * model.heads + 3 if model.positions == "place" else 2)
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
