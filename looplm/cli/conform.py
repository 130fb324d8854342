"""`looplm conform`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from looplm.cli.console import FAILED


@dataclass(frozen=True)
class Conform:
    """Check what a port in another framework computed against the conformance vectors."""

    path: Annotated[Path, tyro.conf.Positional]
    """A port's output file, or a folder of them; tests/vectors/README.md says what to write."""

    def run(self) -> int:
        """Print the first difference of each vector; the exit code is 1 if there is any, or a vector has no output."""
        from looplm.interop.vectors import conform, vector_names

        found = conform(self.path)
        for name, difference in found.items():
            if difference is None:
                print(f"{name}: conforms")
            else:
                print(f"{difference.where}: expected {difference.expected}, found {difference.found}")
        missing = sorted(set(vector_names()) - set(found)) if self.path.is_dir() else []
        for name in missing:
            print(f"{name}: no output")
        return FAILED if missing or any(found.values()) else 0
