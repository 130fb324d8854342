"""`looplm ship`: choose a model that the package carries."""

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Ship:
    """Put the best of some runs into the package: chosen on small problems, then tested once on fresh ones."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name under which the package carries the model, such as translator."""
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN [RUN ...]]")]
    """Runs to choose from."""
    choice_sizes: tuple[int, ...] = ()
    """Sizes of the problems that decide, as the task counts them; default: those on which the recipe is tested."""
    report_sizes: tuple[int, ...] = ()
    """Sizes of the fresh problems of the one test; default: those on which the recipe is tested."""
    n: int = 10_000
    """Fresh problems of that test, in each set and size."""

    def run(self) -> int:
        """Choose, copy, report."""
        from looplm.errors import InputError
        from looplm.resources import asset
        from looplm.runs.ship import ship
        from looplm.task import check_count

        if not self.runs:
            raise InputError("no run was given; give those to choose from.")
        if not self.name.replace("-", "").isalnum() or not self.name.isascii():
            raise InputError(f"a model's name is of letters, numbers and hyphens: got {self.name!r}.")
        check_count(self.n)
        result = ship(self.runs, asset(self.name), self.choice_sizes, self.report_sizes, self.n, print)
        for cell in result["cells"]:
            loss = cell.get("nats_per_token")
            reached = f"{cell['correct']} of {cell['n']} right" if loss is None else f"{loss} nats a token"
            print(f"{cell['set']}, {cell['size']} {result['axis']}: {reached}")
        return 0
