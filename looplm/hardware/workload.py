"""What is to be run: a model, how long its texts are, how many loops it makes, how many rows a step has.

A size is a file in spec/presets/sizes: a model that can be planned and built.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.hardware.profile import parse_file
from looplm.resources import resource

_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Workload:
    """A model and the run that is planned for it."""

    name: str
    title: str
    model: ModelConfig
    context_tokens: _Count
    """Of one row."""
    num_loops: _Count = 1
    batch_size: _Count
    """Rows of a training step."""
    first_read: _Count = 1
    """The first loop whose logits training reads; all from there on are."""
    scored_share: float = Field(default=1.0, gt=0, le=1)
    """Of the tokens, that the loss counts."""
    train_tokens: _Count | None = None
    """Of the whole run."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.model.body == "static" and self.num_loops != 1:
            raise ValueError(f"a static model has one loop: `num_loops` must be 1, got {self.num_loops}")
        if self.first_read > self.num_loops:
            raise ValueError(f"`first_read` ({self.first_read}) must not exceed `num_loops` ({self.num_loops})")
        if 0 < self.model.max_positions < self.context_tokens:
            raise ValueError(
                f"`context_tokens` ({self.context_tokens}) exceeds the model's {self.model.max_positions} positions"
            )
        return self

    @property
    def reads(self) -> int:
        """Loops whose logits a training step reads."""
        return self.num_loops - self.first_read + 1


def size_names() -> list[str]:
    """Names of the sizes in spec/presets/sizes, sorted."""
    return sorted(path.stem for path in resource("spec/presets/sizes").glob("*.toml"))


def find_size(name_or_path: str) -> Workload:
    """A size by its name, or the size in a file that ends in .toml.

    Raises:
        InputError: if there is none, or with every mistake in it.
    """
    if name_or_path.endswith(".toml"):
        return parse_file(Workload, Path(name_or_path))
    if name_or_path in size_names():
        return parse_file(Workload, resource("spec/presets/sizes") / f"{name_or_path}.toml")
    raise InputError(f"There is no size {name_or_path!r}; there are: {', '.join(size_names())}, or a .toml file.")
