"""Bodies: what thinks. A static model is a looped one of one loop, with many layers in its block."""

from looplm.config import ModelConfig
from looplm.models.looped import LoopLM


def build_model(config: ModelConfig) -> LoopLM:
    """A model with fresh weights.

    With `body = "static"` it is an ordinary Transformer: a stack of unshared layers, passed once, with neither state norm
    nor loop signal. It shares every path with the looped model, so a comparison of the two compares nothing else.

    Spec: [architecture.static][].
    """
    return LoopLM(config)
