"""What a model is made of, what it keeps, and how fast it can be: numbers that follow from its shapes alone.

They are counted here from the model's matrices and from the tensors that its operations keep; spec/hardware.md states
them once more, and tests hold the two equal. `tokens` and `readable` are those of one row, `loops` those of a pass,
`reads` the loops after which logits are read; `size` is the bytes of a number in products of matrices, 4 for float32
and 2 for bfloat16. All other numbers are float32.
"""

from operator import itemgetter
from typing import NamedTuple

from looplm.config import ModelConfig

FLOAT32 = 4
"""Bytes of a number in weights, gradients, moments, norms and the stream between layers."""
INT64 = 8
"""Bytes of a token id, or of an index."""
BACKWARD_PASSES = 2
"""As many products as the forward pass has: a gradient for the input of each product, and one for its weights."""
SECONDS_PER_DAY = 86_400
JOULES_PER_KWH = 3.6e6


class Traffic(NamedTuple):
    """Bytes that a pass moves."""

    from_memory: float
    through_cache: float


def kv_width(model: ModelConfig) -> int:
    """Numbers in the keys of one token in one layer, over all heads; its values have as many.

    Spec: [hardware.parameters][].
    """
    return (model.kv_heads or model.heads) * (model.width // model.heads)


def hidden_width(model: ModelConfig) -> int:
    """Numbers that the first product of the MLP gives for one token: SwiGLU's gates, and what they gate; or GELU's input.

    Spec: [hardware.parameters][].
    """
    return model.mlp_width * (2 if model.mlp == "swiglu" else 1)


def layer_weights(model: ModelConfig) -> dict[str, int]:
    """Weights in the matrices of one layer.

    Attention maps the stream to queries, keys and values, and what was read back to the stream; the MLP maps it to its
    hidden numbers and back.

    Spec: [hardware.parameters][].
    """
    return {
        "attention": model.width * (model.width + 2 * kv_width(model)) + model.width * model.width,
        "mlp": model.width * hidden_width(model) + model.mlp_width * model.width,
    }


def head_weights(model: ModelConfig) -> int:
    """Weights in the one matrix that embeds tokens and reads logits.

    Spec: [hardware.parameters][].
    """
    return model.vocab_size * model.width


def parameters(model: ModelConfig) -> dict[str, int]:
    """Trained numbers, part by part; none depends on the loops that are run.

    Spec: [hardware.parameters][].
    """
    layer, signalled = layer_weights(model), model.loop_signal != "none"
    norm = model.width * (1 if model.norm == "rms" else 2)  # gains; LayerNorm shifts too
    norms = 2 * model.layers + 1 + (1 if model.state_norm else 0)  # before attention and MLP, before the head, on the state
    places_apart = len(range(-model.place_reach, model.place_reach + 1))
    positions = {
        "learned": model.max_positions * model.width,
        "place": (2 * places_apart + 1) * model.heads,  # in the same run or another; or the key is in none
    }
    return {
        "embedding": head_weights(model),
        "positions": positions.get(model.positions, 0),
        "loop signal": model.loop_signal_loops * model.width if model.loop_signal == "learned" else 0,
        "attention": model.layers * layer["attention"],
        "mlp": model.layers * layer["mlp"],
        "norms": norms * norm,
        "gate": model.width + (model.width if signalled else 0) + 1 if model.gate else 0,  # state, loop signal, bias
    }


def forward_flops(model: ModelConfig, tokens: int, readable: int, loops: int, reads: int) -> int:
    """Operations in a forward pass over the new tokens of one row, each of which may read `readable` tokens; FLOP.

    A multiplication in a product of matrices comes with an addition. For each readable token, attention multiplies once
    to score it and once to mix its values in, the width over all heads either time.

    Spec: [hardware.forward-flops][].
    """
    layer = sum(layer_weights(model).values()) + 2 * model.width * readable
    multiplications = tokens * (loops * model.layers * layer + reads * head_weights(model))
    return 2 * multiplications


def training_flops(
    model: ModelConfig, tokens: int, loops: int, reads: int, recompute: bool, scored_share: float = 1.0
) -> float:
    """Operations in a training step of one row; FLOP. With `recompute`, the block runs forward once more, and no head does.

    The head reads the scored share of the tokens alone.

    Spec: [hardware.training-flops][].
    """
    block = forward_flops(model, tokens, tokens, loops, reads=0)
    head = scored_share * forward_flops(model, tokens, tokens, 0, reads)
    return (1 + BACKWARD_PASSES) * (block + head) + (block if recompute else 0)


def state_bytes(model: ModelConfig) -> dict[str, int]:
    """Bytes that training holds all the time: weights, their gradients, and the optimizer's two moments of each.

    Spec: [hardware.state-bytes][].
    """
    each = FLOAT32 * sum(parameters(model).values())
    return {"weights": each, "gradients": each, "optimizer": 2 * each}


def cache_bytes(model: ModelConfig, tokens: int, loops: int, size: int) -> int:
    """Bytes of the keys and values of one row: a token has its own in every layer of every loop.

    Spec: [hardware.cache-bytes][].
    """
    keys_and_values = 2 * kv_width(model)
    return size * keys_and_values * model.layers * loops * tokens


def norm_kept(model: ModelConfig) -> int:
    """Bytes of one token that a norm keeps for the backward pass.

    RMSNorm keeps the normed input and the one number that it was multiplied by, LayerNorm its input, the mean and the
    deviation. The output is left to the product that takes it.

    Spec: [hardware.kept-bytes][].
    """
    return FLOAT32 * (model.width + (1 if model.norm == "rms" else 2))


def attention_kept(model: ModelConfig, tokens: int, size: int) -> int:
    """Bytes of one token that the attention of a layer keeps, besides its input.

    Fused attention keeps queries, keys and values, what was read, and a float32 sum of weights for each head. It cannot
    give a gradient to scores that are trained (place), so there the weights themselves are kept, and with the queries, keys
    and values they are float32 whatever the products are.

    Spec: [hardware.kept-bytes][].
    """
    width, projected = model.width, model.width + 2 * kv_width(model)
    if model.positions == "place":
        viewed = model.heads == 1 and size == FLOAT32  # values that nothing copied hold the whole projection
        values = projected if viewed else width
        return FLOAT32 * (model.heads * tokens + width + width + values) + size * width  # weights, q, k, v; what was read
    numbers = projected + width
    if model.positions == "rope":
        sines_and_cosines = 2 * (model.width // model.heads)  # half a head of each, for queries and for keys
        numbers += width + kv_width(model) + sines_and_cosines  # queries and keys once they are turned
        numbers += width if model.heads > 1 else 0  # what was read, its heads side by side again
    if size < FLOAT32:
        numbers += tokens  # the token's row of the mask, cast by every layer
    return size * numbers + FLOAT32 * model.heads


def mlp_kept(model: ModelConfig, size: int) -> int:
    """Bytes of one token that the MLP of a layer keeps, besides its input.

    Hidden numbers, those of them that went through GELU or SiLU, and SwiGLU's gated ones.

    Spec: [hardware.kept-bytes][].
    """
    activated, gated = model.mlp_width, model.mlp_width if model.mlp == "swiglu" else 0
    return size * (hidden_width(model) + activated + gated)


def layer_kept(model: ModelConfig, tokens: int, size: int) -> int:
    """Bytes of one token that a layer keeps: two norms, the output of each as a product takes it, attention and MLP.

    Spec: [hardware.kept-bytes][].
    """
    normed = norm_kept(model) + size * model.width
    return normed + attention_kept(model, tokens, size) + normed + mlp_kept(model, size)


def loop_kept(model: ModelConfig, tokens: int, size: int, recompute: bool) -> int:
    """Bytes of one token that a loop keeps. A layer that is computed again keeps only the stream that it starts from.

    Spec: [hardware.kept-bytes][].
    """
    layer = FLOAT32 * model.width if recompute else layer_kept(model, tokens, size)
    return model.layers * layer + (norm_kept(model) if model.state_norm else 0)


def head_kept(model: ModelConfig, size: int) -> int:
    """Bytes of one scored token that a reading of logits keeps: where it stands, the norm, its output as the head takes it,
    and the logarithms of all probabilities.

    Spec: [hardware.kept-bytes][].
    """
    return 2 * INT64 + norm_kept(model) + size * model.width + FLOAT32 * model.vocab_size


def pass_traffic(model: ModelConfig, rows: int, readable: int, loops: int, size: int, cache: int) -> Traffic:
    """The least that a pass over new tokens moves; bytes, on a device with a cache of `cache` bytes.

    Every loop reads the block and the head; each loop's keys and values are read once. What the cache still holds from
    the reading before need not come from memory.

    Spec: [hardware.traffic][].
    """
    weights = size * (model.layers * sum(layer_weights(model).values()) + head_weights(model))
    context = rows * cache_bytes(model, readable, loops, size)
    first, other = weights + context, weights
    from_memory = max(0, first - cache) + (loops - 1) * max(0, other - cache)
    return Traffic(from_memory, loops * weights + context)


def step_traffic(
    model: ModelConfig, rows: int, tokens: int, loops: int, reads: int, size: int, cache: int, scored_share: float = 1.0
) -> Traffic:
    """The least that a training step moves; bytes, on a device with a cache of `cache` bytes.

    The optimizer reads a weight, its gradient and two moments, and writes all but the gradient. What cannot be computed
    again, the input of each layer and what norms outside of layers and the head keep, is written and read. Each loop
    reads the weights forward, and twice backward.

    Spec: [hardware.traffic][].
    """
    count = sum(parameters(model).values())
    head = scored_share * reads * head_kept(model, size)
    kept = rows * tokens * (loops * loop_kept(model, tokens, size, recompute=True) + head)
    moved = FLOAT32 * (4 + 3) * count + 2 * kept
    return Traffic(max(0, moved - cache), moved + loops * (1 + BACKWARD_PASSES) * size * count)


def roofline(
    flops: float, traffic: tuple[float, float], rate: float, bandwidth: float, cache_bandwidth: float | None
) -> tuple[float, str]:
    """The least seconds that a pass can take, and the wall that sets them: compute, memory or cache.

    Args:
        flops: operations of the pass; FLOP.
        traffic: bytes from memory, and bytes through the cache.
        rate: FLOP a second at most.
        bandwidth: of the memory; bytes a second.
        cache_bandwidth: of the cache; bytes a second. None where nothing is known of it.

    Source: Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785. We add the cache as a third wall.
    Spec: [hardware.roofline][].
    """
    from_memory, through_cache = traffic
    walls = [("compute", flops / rate), ("memory", from_memory / bandwidth)]
    walls += [("cache", through_cache / cache_bandwidth)] if cache_bandwidth else []
    wall, seconds = max(walls, key=itemgetter(1))
    return seconds, wall


def run_cost(tokens: float, tokens_per_s: float, power_w: float) -> tuple[float, float]:
    """Days that a run over so many tokens takes, and its energy at so many watts all the time; kWh.

    Spec: [hardware.run-cost][].
    """
    seconds = tokens / tokens_per_s
    return seconds / SECONDS_PER_DAY, seconds * power_w / JOULES_PER_KWH
