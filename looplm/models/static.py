"""StaticGPT: the control without a loop."""

from looplm.config import ModelConfig
from looplm.models.looped import LoopLM


class StaticGPT(LoopLM):
    """An ordinary Transformer: a stack of unshared layers, passed once.

    It is the looped model at one loop, with many layers in its block and neither state norm nor loop signal; so it
    shares every path with LoopLM, and a comparison of the two compares nothing else.

    Spec: [architecture.static][].
    """


def build_model(config: ModelConfig) -> LoopLM:
    """A model with fresh weights, of the body that the config names."""
    return {"looped": LoopLM, "static": StaticGPT}[config.body](config)
