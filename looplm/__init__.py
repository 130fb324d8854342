"""LoopLM: a looped language model that you can read, run, test and cite.

    import looplm
    adder = looplm.load("adder")
    looplm.solve(adder, ["978+457"])

Names are loaded when they are first used, so that `import looplm` and `looplm --help` are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from looplm.resources import resource

if TYPE_CHECKING:
    from looplm.config import ModelConfig as ModelConfig
    from looplm.errors import InputError as InputError
    from looplm.models.looped import LoopLM as LoopLM
    from looplm.runs.checkpoint import Trained as Trained
    from looplm.runs.checkpoint import load as load
    from looplm.runs.checkpoint import save as save
    from looplm.tasks.addition.solve import solve as solve
    from looplm.think.beam import Beam as Beam
    from looplm.think.generate import generate as generate
    from looplm.think.generate import stream as stream
    from looplm.think.sampling import Sampling as Sampling
    from looplm.train.recipe import load_recipe as load_recipe

_HOME = {
    "Beam": "looplm.think.beam",
    "InputError": "looplm.errors",
    "LoopLM": "looplm.models.looped",
    "ModelConfig": "looplm.config",
    "Sampling": "looplm.think.sampling",
    "Trained": "looplm.runs.checkpoint",
    "generate": "looplm.think.generate",
    "load": "looplm.runs.checkpoint",
    "load_recipe": "looplm.train.recipe",
    "save": "looplm.runs.checkpoint",
    "solve": "looplm.tasks.addition.solve",
    "stream": "looplm.think.generate",
}
__all__ = ["__version__", *_HOME]

__version__ = (resource("spec") / "VERSION").read_text(encoding="utf-8").strip()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'looplm' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
