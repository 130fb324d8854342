"""Keys and values of the tokens read so far, one entry per loop: what a looped model keeps instead of recomputing.

Loop l of a new token reads what earlier tokens offered at their loop l. A token that halted after loop s has offered
entries 1 .. s as it went, and one more, projected from its final state as loop s + 1 would; every later loop reads
that last entry. That is KV publish, and it is exact: what a token offers depends on no token after it.
"""

from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from looplm.layers.attention import Remember
from looplm.shapes import Bool, Float, Int


class KVCache:
    """Grows by a chunk of tokens at a time; a chunk is written loop by loop, then committed.

    Args:
        num_loops: loops that a reader may ask for; num_layers: layers in the block.

    Memory: 2 * num_loops * num_layers * B * D elements a token, at most twice that while it grows.
    Spec: [halting.kv-publish][], [architecture.cache][].
    """

    def __init__(self, num_loops: int, num_layers: int) -> None:
        self.num_loops, self.num_layers = num_loops, num_layers
        self.tokens: Tensor | None = None  # [B, S], committed
        self.real: Tensor | None = None  # [B, S]
        self.waited_for: Tensor | None = None  # [B, 1], most loops that a committed token of the answer took
        self._keys: Tensor | None = None  # [L, layers, B, H, capacity, K]
        self._values: Tensor | None = None

    def __len__(self) -> int:
        """Committed tokens per row."""
        return 0 if self.tokens is None else self.tokens.shape[1]

    @property
    def nbytes(self) -> int:
        """Allocated for keys and values, room for tokens to come included.

        Spec: [hardware.cache-bytes][].
        """
        return sum(buffer.nbytes for buffer in (self._keys, self._values) if buffer is not None)

    def join(
        self, tokens: Annotated[Tensor, Int("B T")], real: Annotated[Tensor, Bool("B T")]
    ) -> tuple[Annotated[Tensor, Int("B S")], Annotated[Tensor, Bool("B S")]]:
        """All tokens that may be read while this chunk runs: the committed ones, then its own."""
        if self.tokens is None or self.real is None:
            return tokens, real
        return torch.cat((self.tokens, tokens), 1), torch.cat((self.real, real), 1)

    def at(self, l: int, published: Annotated[Tensor, Bool("B T")]) -> list[Remember]:
        """One `remember` per layer for loop l; `published` tokens offer what they offered at loop l - 1."""
        return [partial(self._remember, l, layer, published) for layer in range(self.num_layers)]

    def _remember(
        self,
        l: int,
        layer: int,
        published: Tensor,
        keys: Annotated[Tensor, Float("B H T K")],
        values: Annotated[Tensor, Float("B H T K")],
    ) -> tuple[Annotated[Tensor, Float("B H S K")], Annotated[Tensor, Float("B H S K")]]:
        start, end = len(self), len(self) + keys.shape[2]
        both = []
        for buffer, new in zip(self._reserve(keys, end), (keys, values), strict=True):
            if l > 1:
                new = torch.where(published[:, None, :, None], buffer[l - 2, layer, :, :, start:end], new)
            buffer[l - 1, layer, :, :, start:end] = new
            both.append(buffer[l - 1, layer, :, :, :end])
        return both[0], both[1]

    def _reserve(self, like: Tensor, size: int) -> tuple[Tensor, Tensor]:
        if self._keys is None or self._values is None or self._keys.shape[4] < size:
            batch, heads, _, head_dim = like.shape
            shape = (self.num_loops, self.num_layers, batch, heads, max(size, 2 * len(self)), head_dim)
            grown = like.new_empty(shape), like.new_empty(shape)
            if self._keys is not None and self._values is not None:
                old = self._keys.shape[4]
                grown[0][..., :old, :], grown[1][..., :old, :] = self._keys, self._values
            self._keys, self._values = grown
        return self._keys, self._values

    def commit(
        self,
        tokens: Annotated[Tensor, Int("B T")],
        real: Annotated[Tensor, Bool("B T")],
        answer_loops: Annotated[Tensor, Int("B T")],
        last_loop: int,
    ) -> None:
        """End a chunk: what it offered at `last_loop` stands for all later loops.

        Args:
            tokens: the chunk.
            real: False for padding.
            answer_loops: loops that each token of the answer took, 0 for others.
            last_loop: the last loop that was written.
        """
        most = answer_loops.amax(1, keepdim=True)
        self.waited_for = most if self.waited_for is None else torch.maximum(self.waited_for, most)
        assert self._keys is not None and self._values is not None
        start = len(self)
        self.tokens, self.real = self.join(tokens, real)
        for buffer in (self._keys, self._values):
            written = buffer[:, :, :, :, start : len(self)]
            written[last_loop:] = written[last_loop - 1]
