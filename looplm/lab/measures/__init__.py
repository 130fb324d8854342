"""What a study measures of a trained model: named values, and curves over loops.

A measure is one file of this folder: a dataclass of its settings, named `CHOICE` at the end of the file, that is called with a
trained model and the folder of its run. It knows tasks by their face alone. A measure of one task only stands in that task's
folder, or anywhere else, and a study names it `package.module:Class`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field, PlainSerializer, PlainValidator, ValidationError
from torch import Tensor

from looplm.choices import Choices
from looplm.chosen import as_validation_error, read_choice, under, write_choice
from looplm.runs.checkpoint import Trained

Count = Annotated[int, Field(ge=1)]
"""How many: problems, loops; also a size."""


@dataclass(frozen=True)
class Measured:
    """What one measure gave."""

    values: dict[str, float] = field(default_factory=dict)
    """Plain numbers, accuracies as shares."""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """Over loops 1, 2, ...; one named `A_by_B` over the values of the curve `B`, if there is one."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Whatever else a table of its own is rendered from."""


class Measure(Protocol):
    """Measures one model."""

    def __call__(self, trained: Trained, run: Path) -> Measured:
        """What it finds of a model, whose run is in the folder `run`."""
        ...


MEASURES: Choices[Measure] = Choices("looplm.lab.measures", "measure")
"""The files of this folder."""


def read_measures(tables: Any) -> dict[str, Measure]:
    """The measures of a study's table `[measures]`, by their names there; what is a measure already stays as it is.

    A table's `measure` says which one it is. Without that its name does, up to the first dot: `rules.low` are `rules` again.

    Raises:
        ValidationError: with every mistake, each at its path.
    """
    if not isinstance(tables, Mapping):
        raise as_validation_error([((), "must be a table of measures", tables)])
    measures, mistakes = {}, []
    for name, table in tables.items():
        try:
            kind = name.partition(".")[0]
            measures[name] = read_choice(MEASURES, table, key="measure", default=kind, face=("__call__",))
        except ValidationError as error:
            mistakes += under((name,), error)
    if mistakes:
        raise as_validation_error(mistakes)
    return measures


def write_measure(measure: Measure) -> dict[str, Any]:
    """The table that gives the measure again."""
    return write_choice(MEASURES, measure, key="measure")


Measures = Annotated[
    dict[str, Measure],
    PlainValidator(read_measures),
    PlainSerializer(lambda measures: {name: write_measure(measure) for name, measure in measures.items()}),
]
"""As the type of a setting, read from tables and written as tables."""


def share(solved: Tensor) -> float:
    """The share that is true, with six decimals."""
    return round(float(solved.double().mean()), 6)
