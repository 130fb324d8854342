"""What an encoder-decoder does before it has learnt anything: attention, guesses, gradients by layer; and a few formulas.

Nothing is trained. The statements of a plan that can be decided so name these numbers (docs/data/transformer-plan.toml).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from statistics import fmean
from typing import Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from looplm.layers.cross_attention import CrossAttention
from looplm.models.seq2seq import Layer, Seq2Seq, Seq2SeqConfig
from looplm.runs.provenance import circumstances
from looplm.settings import STRICT

SCHEMA = 1
Values = dict[str, float]
NormPlace = Literal["post", "pre"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Start:
    """Sizes of what is measured: the base size of 2017 where nothing else is said."""

    seeds: int = Field(default=5, ge=1, le=1000)
    vocab_size: int = Field(default=37_000, ge=4)
    width: int = Field(default=512, ge=2)
    heads: int = Field(default=8, ge=1)
    layers: int = Field(default=6, ge=1)
    deep: int = Field(default=24, ge=1)
    """Layers of the deeper model."""
    mlp_width: int = Field(default=2048, ge=1)
    rows: int = Field(default=16, ge=1)
    words: int = Field(default=3, ge=2)
    """Tokens of a source, and of a target."""
    far: int = Field(default=50, ge=2)
    """Places between an input and the last state."""
    steps: int = Field(default=4000, ge=2)
    """Gradients of which Adam takes the moments."""

    def model(self, seed: int, layers: int, kind: type[Layer] = Layer, norm_place: NormPlace = "post") -> Seq2Seq:
        """An untrained body, made of layers of this kind; it takes no gradients for its weights."""
        torch.manual_seed(seed)
        settings: dict[str, Any] = {"width": self.width, "heads": self.heads, "mlp_width": self.mlp_width}
        config = Seq2SeqConfig(
            vocab_size=self.vocab_size, pad_id=0, end_ids=(1,), layers=layers, norm_place=norm_place, **settings
        )
        model = Seq2Seq(config)
        if kind is not Layer:
            model.encoder, model.decoder = (
                nn.ModuleList(kind(config, decoder=of) for _ in range(layers)) for of in (False, True)
            )
        return model.requires_grad_(False)

    def tokens(self, count: int) -> Tensor:
        """Drawn words, no marks: Int[B T]."""
        return torch.randint(2, self.vocab_size, (self.rows, count))


class WithoutSums(Layer):
    """A layer whose sublayers replace the stream and are not added to it."""

    def _around(self, name: str, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        replaced: Tensor = self.norms[name](sublayer(x))
        return replaced


class WithoutNorms(Layer):
    """A layer whose sublayers are added to the stream, and nothing is normed."""

    def _around(self, name: str, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return x + sublayer(x)


def measure(start: Start, note: Callable[[str], None]) -> dict[str, Any]:
    """Every number, each the mean over seeds, and how they came about.

    Args:
        start: the sizes.
        note: told each part before it is measured.

    Returns:
        A table of parts, each a table of numbers, with the sizes and the circumstances.
    """
    parts: dict[str, Callable[[Start, int], Values]] = {
        "attention": attention,
        "loss": first_loss,
        "gradient": gradients,
        "distance": distances,
        "adam": adam,
        "pieces": pieces,
    }
    found: dict[str, Any] = {
        "schema": SCHEMA,
        **circumstances(torch.device("cpu")),
        "seeds": start.seeds,
        "sizes": asdict(start),
    }
    for name, part in parts.items():
        note(f"{name}, {start.seeds} seeds")
        found[name] = _mean(part(start, seed) for seed in range(start.seeds))
    found["gradient"] |= _rounded(_compared(found["gradient"]))
    found["pieces"] |= _rounded(_fits(found["pieces"]))
    return found


def attention(start: Start, seed: int) -> Values:
    """How far the first encoder layer's weights are from even, and their entropy as a share of that of even ones."""
    model = start.model(seed, start.layers)
    x, visible = model.embed(start.tokens(start.words)), torch.ones(1, start.words, start.words, dtype=torch.bool)
    layer = model.encoder[0]
    assert isinstance(layer, Layer)
    weights = layer.attention.weights(x, x, visible)
    entropy = torch.special.entr(weights).sum(-1).mean()
    return {
        "gap": float((weights - 1 / start.words).abs().mean()),
        "largest": float(weights.amax(-1).mean()),
        "entropy_share": float(entropy) / math.log(start.words),
    }


def first_loss(start: Start, seed: int) -> Values:
    """The loss on drawn targets, that of even guesses; shares of guesses that repeat the token just read, or are distinct."""
    model = start.model(seed, start.layers)
    source, target = start.tokens(start.words), start.tokens(start.words + 1)
    rows = torch.cat((source, torch.ones(start.rows, 1, dtype=torch.long), target), 1)
    logits = model(rows[:, :-1], 1)[-1][:, start.words + 1 :]  # those that are read at words of the target
    even, found = math.log(start.vocab_size), float(cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten()))
    guesses = logits.argmax(-1)
    repeats, distinct = (guesses == target[:, :-1]).double().mean(), len(guesses.unique()) / guesses.numel()
    return {"start": found, "even": even, "off": abs(found - even), "repeats": float(repeats), "distinct": distinct}


def gradients(start: Start, seed: int) -> Values:
    """Norms of the loss's gradient at the decoder's input and behind each of its layers, over that behind the last.

    For norms behind the sums, in front of them, without sums, without norms, and for the deeper model; in float64.
    """
    models: dict[str, tuple[int, type[Layer], NormPlace]] = {
        "post": (start.layers, Layer, "post"),
        "pre": (start.layers, Layer, "pre"),
        "no_sums": (start.layers, WithoutSums, "post"),
        "no_norms": (start.layers, WithoutNorms, "post"),
        "deep": (start.deep, Layer, "post"),
    }
    found: Values = {}
    for name, settings in models.items():
        model = start.model(seed, *settings).double()
        source, target = start.tokens(start.words), start.tokens(start.words + 1)
        encoder, decoder = _gradient_norms(model, source, target)
        if name != "deep":
            found |= {f"{name}_layer_{l}": norm / decoder[-1] for l, norm in enumerate(decoder) if l}
        found[f"{name}_input"] = decoder[0] / decoder[-1]
        found[f"{name}_spread"] = max(decoder[1:]) / min(decoder[1:])
        found[f"{name}_encoder_input"] = encoder[0] / encoder[-1]
    return found


def _gradient_norms(model: Seq2Seq, source: Tensor, target: Tensor) -> tuple[list[float], list[float]]:
    """At the input and behind each layer: in the encoder of a drawn product with the memory, in the decoder of the loss."""
    real, words = torch.ones_like(source, dtype=torch.bool), target.shape[1] - 1
    read = [model.embed(source).requires_grad_()]
    for layer in model.encoder:
        read.append(layer(read[-1], real[:, None]))
    of_memory = torch.autograd.grad((read[-1] * torch.randn_like(read[-1])).sum(), read)
    memory, before = model.memory_norm(read[-1]).detach(), torch.ones(words, words, dtype=torch.bool).tril()[None]
    written = [model.embed(target[:, :-1]).requires_grad_()]
    for layer in model.decoder:
        written.append(layer(written[-1], before, memory, real[:, None]))
    loss = cross_entropy(model.logits(written[-1]).flatten(0, 1), target[:, 1:].flatten())
    of_loss = torch.autograd.grad(loss, written)
    return [float(of.norm()) for of in of_memory], [float(of.norm()) for of in of_loss]


def _compared(found: Values) -> Values:
    """What the sums keep of the gradient, what norms save of its spread, and what depth adds to it."""
    return {
        "sums_keep": found["post_input"] / found["no_sums_input"],
        "sums_keep_in_encoder": found["post_encoder_input"] / found["no_sums_encoder_input"],
        "norms_save": found["no_norms_spread"] / found["post_spread"],
        "depth_adds": found["deep_spread"] / found["post_spread"],
    }


def distances(start: Start, seed: int) -> Values:
    """The gradient of the last state by an input far before it, over that by the one before, for a GRU and for attention."""
    torch.manual_seed(seed)
    width, length = 64, start.far + 1
    x, drawn = torch.randn(start.rows, length, width, requires_grad=True), torch.randn(start.rows, width)
    reads = CrossAttention(width, 4), nn.GRU(width, width, batch_first=True)
    visible = torch.ones(1, 1, length, dtype=torch.bool)
    lasts = reads[0](x[:, -1:], x, visible)[:, 0], reads[1](x)[1][0]
    found = {}
    for name, last in zip(("attention", "gru"), lasts, strict=True):
        (by,) = torch.autograd.grad((last * drawn).sum(), x)
        norms = by.norm(dim=(0, 2))
        found[name] = float(norms[-1 - start.far] / norms[-2])
    return found


def adam(start: Start, seed: int, beta: float = 0.98) -> Values:
    r"""The relative spread of Adam's corrected second moment, of drawn gradients of spread 1, at the first and last step.

    Source: Kingma and Ba 2015, algorithm 1, arXiv:1412.6980, with the $\beta_2$ of Vaswani et al. 2017.
    """
    generator, moment, found = torch.Generator().manual_seed(seed), torch.zeros(4096), {}
    for step in range(1, start.steps + 1):
        moment = beta * moment + (1 - beta) * torch.randn(4096, generator=generator) ** 2
        if step in (1, start.steps):
            found["first" if step == 1 else "last"] = float((moment / (1 - beta**step)).std())
    return found | {"first_over_last": found["first"] / found["last"]}


def pieces(start: Start, seed: int, width: int = 16, points: int = 20_001) -> Values:
    """Linear pieces along a line of a stack x + W relu(Ux + u), by its depth: places where some unit starts or stops."""
    torch.manual_seed(seed)
    x = torch.linspace(-3, 3, points, dtype=torch.float64)[:, None] * torch.randn(width).double() + torch.randn(width).double()
    changes = torch.zeros(points - 1, dtype=torch.bool)
    found: Values = {}
    for depth in range(1, 33):
        up, down = nn.Linear(width, 4 * width).double(), nn.Linear(4 * width, width).double()
        inner = up(x).relu().detach()
        changes |= ((inner > 0)[1:] != (inner > 0)[:-1]).any(1)
        x = x + down(inner).detach()
        if depth & (depth - 1) == 0:
            found[f"depth_{depth}"] = 1 + float(changes.sum())
    return found


def _fits(found: Values) -> Values:
    """The squared error of a + b log(depth) over that of a + b depth."""
    depths = torch.tensor([float(name.removeprefix("depth_")) for name in found], dtype=torch.float64)
    counts = torch.tensor(list(found.values()), dtype=torch.float64)

    def error(by: Tensor) -> float:
        inputs = torch.stack((torch.ones_like(by), by), 1)
        best = torch.linalg.lstsq(inputs, counts[:, None]).solution
        return float(((inputs @ best)[:, 0] - counts).square().sum())

    return {"log_over_linear": error(depths.log()) / error(depths)}


def _mean(found: Iterable[Values]) -> Values:
    tables = list(found)
    return _rounded({name: fmean(table[name] for table in tables) for name in tables[0]})


def _rounded(values: Values) -> Values:
    return {name: float(f"{value:.6g}") for name, value in values.items()}
