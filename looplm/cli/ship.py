"""`looplm ship`: choose a model that the package carries."""

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Ship:
    """Put the best of some runs into the package: chosen on small problems, then tested once on larger ones."""

    name: Annotated[str, tyro.conf.Positional]
    """Under which it is shipped."""
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN [RUN ...]]")]
    """To choose from."""
    choice_sizes: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    """Of the problems that decide."""
    report_sizes: tuple[int, ...] = (12,)
    """Of those of the one report."""

    def run(self) -> int:
        """Choose, copy, report."""
        from looplm.errors import InputError
        from looplm.resources import asset
        from looplm.runs.ship import ship

        if not self.runs:
            raise InputError("no run was given; give those to choose from.")
        result = ship(self.runs, asset(self.name), self.choice_sizes, self.report_sizes)
        for cell in result["cells"]:
            print(f"{cell['set']}, {cell['size']} {result['axis']}: {cell['correct']} of {cell['n']} right")
        return 0
