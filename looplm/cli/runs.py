"""`looplm runs`: what is there, and how far it is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from looplm.cli.console import notes


@dataclass(frozen=True)
class Runs:
    """List the runs below a folder: recipe, seed, and how far each is."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[FOLDER]")] = Path("runs")
    """Where to look."""
    json: bool = False
    """Print one JSON object a line."""

    def run(self) -> int:
        """One line a run."""
        from looplm.errors import InputError
        from looplm.runs.record import state_of

        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is no folder; give one that holds runs.")
        paths = sorted({file.parent for name in ("run.json", ".lock") for file in self.folder.rglob(name)})
        for path in paths:
            state = state_of(path)
            if self.json:
                print(json.dumps({"folder": str(path), **state}))
            else:
                print(f"{path}: {state['recipe']}, seed {state['seed']}: {state['state']}")
        if not paths:
            notes().print(f"there are no runs below {self.folder}.")
        return 0
