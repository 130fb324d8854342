"""The commands that bAbI brings: controls and stories. Imported by the command line alone, so heavy imports wait."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from looplm.cli.console import find_device, notes, output

_MOST_STORIES = 1_000_000


@dataclass(frozen=True)
class Controls:
    """Test runs of bAbI with a part taken away, beside the baseline by rule; the numbers go into one summary."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Complete runs: seeds of one recipe, then those of its controls."""
    out: Path
    """Where the summary goes; the file must not exist."""
    data: Path | None = None
    """What the task reads, where it is no longer where the runs found it."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Test, print the table, write the summary."""
        from looplm.cli.tables import print_comparison
        from looplm.errors import InputError
        from looplm.files import refuse_existing, to_json, write_file
        from looplm.runs.results import groups_of, make_summary, refuse_twice
        from looplm.tasks.babi.controls import with_controls

        if not self.runs:
            raise InputError("no run was given; give the folders of runs such as those of `looplm train babi-16`.")
        refuse_existing(self.out)
        find_device("cpu", self.threads)
        results = list(with_controls(self.runs, self.data, notes().print))
        refuse_twice(results)
        write_file(self.out, to_json(make_summary(results)))
        groups = groups_of(results)
        main = next(iter(groups))
        controls = [result for name, group in groups.items() if name != main for result in group]
        print_comparison(output(), groups[main], controls)
        return 0


@dataclass(frozen=True)
class Stories:
    """Write stories like those of task 16 of bAbI, drawn by rule: `looplm train babi-16 --data FILE` learns from them."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Where they go, a name that ends in .txt; the file must not exist."""
    count: int = 12_000
    """Stories, of one question each."""
    seed: int = 0
    """Fixes the stories."""

    def run(self) -> int:
        """Draw and write."""
        from looplm.errors import InputError
        from looplm.files import refuse_existing, write_file
        from looplm.tasks.babi.simulate import simulate

        if not 1 <= self.count <= _MOST_STORIES:
            raise InputError(f"`--count` must be from 1 to {_MOST_STORIES:,}: got {self.count}.")
        if self.out.suffix != ".txt":
            raise InputError(f"`FILE` must end in .txt, so that it can be read again: got {self.out}.")
        refuse_existing(self.out)
        write_file(self.out, "".join(line + "\n" for line in simulate(self.count, self.seed)).encode())
        notes().print(f"wrote {self.out}: {self.count:,} stories")
        return 0


VERBS: dict[str, Any] = {"controls": Controls, "stories": Stories}
