"""What the package is measured against on a CPU: transformers' GPT-2 in generation, a plain GPT in training."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from looplm.errors import InputError
from looplm.shapes import Float, Int


class GPT2:
    """GPT-2 by the package transformers, with keys and values kept.

    Raises:
        InputError: if transformers is not installed.
    """

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, longest: int) -> None:
        try:
            import transformers
        except ImportError:
            raise InputError("this measures against GPT-2 of transformers: pip install 'looplm[hf]'.") from None
        transformers.logging.set_verbosity_error()
        self.version: str = transformers.__version__
        config = transformers.GPT2Config(
            n_layer=layers,
            n_embd=width,
            n_head=heads,
            vocab_size=vocabulary,
            n_positions=longest,
            bos_token_id=0,
            eos_token_id=None,
        )
        self._model: Any = transformers.GPT2LMHeadModel(config).eval()

    @torch.inference_mode()
    def bare(self, prompts: Annotated[Tensor, Int("B T")], count: int) -> Annotated[Tensor, Int("B N")]:
        """The most likely tokens, by as short a loop as one can write."""
        new, cache, made = prompts, None, []
        for _ in range(count):
            read = self._model(new, past_key_values=cache)
            new, cache = read.logits[:, -1:].argmax(-1), read.past_key_values
            made.append(new)
        return torch.cat(made, 1)

    def generate(self, prompts: Annotated[Tensor, Int("B T")], count: int) -> Annotated[Tensor, Int("B N")]:
        """The same by its own `generate`."""
        made: Tensor = self._model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
        return made[:, prompts.shape[1] :]


class PlainGPT(nn.Module):
    """A pre-norm Transformer as one writes it with torch's own modules: LayerNorm, GELU, learned positions, a tied head."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, vocabulary: int, longest: int) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.layers = nn.ModuleList(_PlainLayer(width, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Annotated[Tensor, Int("B T")]) -> Annotated[Tensor, Float("B T V")]:
        """Logits of each next token."""
        x = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.embedding.weight.T

    def loss(self, tokens: Annotated[Tensor, Int("B T")], targets: Annotated[Tensor, Int("B T")]) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(tokens).flatten(0, 1), targets.flatten())


class _PlainLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down, self.gelu = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        read = scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.out(read.transpose(1, 2).flatten(2))
        y: Tensor = x + self.down(self.gelu(self.up(self.mlp_norm(x))))
        return y
