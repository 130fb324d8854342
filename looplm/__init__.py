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
    from looplm.runs.checkpoint import load as load
    from looplm.runs.checkpoint import save as save
    from looplm.config import ModelConfig as ModelConfig
    from looplm.errors import InputError as InputError
    from looplm.tasks.addition.solve import solve as solve
    from looplm.think.generate import generate as generate
    from looplm.models.looped import LoopLM as LoopLM
    from looplm.models.static import StaticGPT as StaticGPT

_HOME = {
    "InputError": "looplm.errors",
    "LoopLM": "looplm.models.looped",
    "ModelConfig": "looplm.config",
    "StaticGPT": "looplm.models.static",
    "generate": "looplm.think.generate",
    "load": "looplm.runs.checkpoint",
    "save": "looplm.runs.checkpoint",
    "solve": "looplm.tasks.addition.solve",
}
__all__ = ["__version__", *_HOME]

__version__ = (resource("spec") / "VERSION").read_text(encoding="utf-8").strip()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'looplm' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
