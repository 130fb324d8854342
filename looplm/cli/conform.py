"""`looplm conform`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from looplm.cli.console import FAILED


@dataclass(frozen=True)
class Conform:
    """Check what a port in another framework computed against the conformance vectors."""

    path: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PATH]")] = None
    """A port's output file, or a folder of them; tests/vectors/README.md says what to write."""
    write: Path | None = None
    """In place of checking: make the vectors anew, into this folder."""

    def run(self) -> int:
        """Print where each vector first differs, with exit code 1 if any does or has no output; or write the vectors."""
        from looplm.errors import InputError
        from looplm.interop.vectors import conform, vector_names

        if (self.path is None) == (self.write is None):
            raise InputError("give either what a port wrote, a file or a folder, or `--write FOLDER` to make the vectors anew.")
        if self.write is not None:
            from looplm.interop.make_vectors import write_vectors

            for file in write_vectors(self.write):
                print(file)
            return 0
        assert self.path is not None
        verdicts = conform(self.path)
        for name, verdict in verdicts.items():
            first = verdict.first
            if first is None:
                print(f"{name}: conforms ({verdict.cases} cases, {verdict.dtype})")
                continue
            cases = ", ".join(map(str, verdict.differing))
            print(f"{name}: {len(verdict.differing)} of {verdict.cases} cases differ ({cases}); in case {first.case}, first:")
            print(f"    {first.place}: expected {first.expected}, found {first.found}")
            allowed = f"{verdict.dtype} allows {first.tolerance:g}" if first.tolerance else "it must be equal"
            print(f"    {first.apart:.2g} apart; {allowed}")
            print(f"    {first.words}")
            print(f"    see {', '.join(first.clauses)}")
        if any(verdict.first for verdict in verdicts.values()):
            print("Cases, rows, tokens and indices count from 0, loops from 1. `looplm spec show ID` shows a clause.")
        missing = sorted(set(vector_names()) - set(verdicts)) if self.path.is_dir() else []
        for name in missing:
            print(f"{name}: no output")
        return FAILED if missing or any(verdict.first for verdict in verdicts.values()) else 0
