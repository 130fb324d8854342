"""`looplm measure`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from looplm.cli.console import find_device, notes, output


@dataclass(frozen=True)
class Measure:
    """Measure what needs no run.

    transformer-start: what the encoder-decoder of 2017, at its base size, does before it has learnt anything; a minute.
    """

    what: Annotated[Literal["transformer-start"], tyro.conf.Positional]
    """What to measure."""
    out: Path | None = None
    """Also write the numbers to this JSON file, which must not exist."""
    seeds: int = 5
    """Models of each kind."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Measure, write, print."""
        from looplm.files import refuse_existing, to_json, write_file
        from looplm.lab.transformer_start import Start, measure
        from looplm.settings import parse

        if self.out:
            refuse_existing(self.out)
        start = parse(Start, {"seeds": self.seeds}, "looplm measure")
        find_device("cpu", self.threads)
        found = to_json(measure(start, notes().print))
        if self.out:
            write_file(self.out, found)
        output().print(found.decode(), highlight=False)
        return 0
