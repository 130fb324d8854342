"""Static: an ordinary Transformer, a stack of unshared layers that is passed once, with neither state norm nor loop signal.

It is a looped body of one loop with many layers in its block, so a comparison of the two compares nothing else
(architecture.static).
"""

from looplm.models.looped import LoopLM

CHOICE = LoopLM
