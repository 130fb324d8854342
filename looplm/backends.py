"""Which code runs the loop: the kernels' plain reference, this package's own torch, or the fused kernels in Triton.

The choice is made here and nowhere else. Each backend is something that thinks about rows of tokens and is asked the
same few things (`looplm.thinking.Thinking` is the torch one), so that who generates need not know which one it has.
"""

import torch
from looplm_kernels.weights import Places, Weights
from torch import Tensor

from looplm.layers.block import Layer
from looplm.layers.positions import DigitPlace, LearnedPositions, RotaryPositions
from looplm.models.looped import LoopLM


def kernel_weights(model: LoopLM) -> Weights:
    """The model as the kernels take it, without a copy where torch needs none.

    Raises:
        ValueError: if its block has more than one layer.

    Spec: [kernels.reference][].
    """
    config, positions = model.config, model.positions
    if config.layers != 1:
        raise ValueError(f"the kernels know blocks of one layer: this model's has {config.layers}.")
    layer = model.block.layers[0]
    assert isinstance(layer, Layer)
    norms = (layer.attention_norm, layer.mlp_norm, model.state_norm if config.state_norm else layer.mlp_norm, model.head_norm)
    mlp = dict(layer.mlp.named_parameters())
    gate, up = mlp["gate_and_up.weight"].chunk(2) if config.mlp == "swiglu" else (None, mlp["up.weight"])
    embedding: Tensor = model.embedding.weight
    signals = model.loop_signal.table
    return Weights(
        embedding=embedding,
        gains=torch.stack([norm.get_parameter("weight") for norm in norms]),
        shifts=torch.stack([norm.get_parameter("bias") for norm in norms]) if config.norm == "layer" else None,
        qkv=layer.attention.qkv.weight,
        out=layer.attention.out.weight,
        up=up,
        gate=gate,
        down=mlp["down.weight"],
        signals=torch.zeros_like(embedding[:1]) if signals is None else signals,
        heads=config.heads,
        every_loop=config.injection == "every",
        state_norm=config.state_norm,
        rope=isinstance(positions, RotaryPositions),
        learned=positions.table.weight if isinstance(positions, LearnedPositions) else None,
        places=Places(positions.table * positions.scale, positions.is_digit, positions.reach, positions.window)
        if isinstance(positions, DigitPlace)
        else None,
    )
