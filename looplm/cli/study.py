"""`looplm study`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from looplm.cli.console import notes, output

if TYPE_CHECKING:
    from looplm.lab.study import Study


@dataclass(frozen=True)
class StudyCommand:
    """Train and measure what is missing of a study, and render its table, figures and verdicts from the numbers."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """The name of a file in spec/presets/studies, such as x0, or a file of your own that ends in .toml."""
    fast: bool = False
    """A look at the whole way in some minutes: one seed, few steps, few problems. It answers nothing."""
    jobs: int = 2
    """Cells at a time, each on one CPU thread."""
    folder: Path = Path("runs/study")
    """Where models and measurements are kept, and found when the study goes on."""
    summary: Path | None = None
    """Render this summary; nothing is trained or measured."""
    out: Path | None = None
    """Also write the summary here; the file must not exist."""
    figures: Path | None = None
    """Write the figures into this folder, as study-NAME-... .svg and .png; default: beside the runs."""

    def run(self) -> int:
        """Study, write, print."""
        from looplm.errors import InputError
        from looplm.evaluate.figures import save_figure
        from looplm.files import refuse_existing, refuse_unwritable, to_json, write_file
        from looplm.lab.study import load_study, read_study_summary, run_study
        from looplm.lab.study_figures import study_figures

        study = load_study(self.name, fast=self.fast)
        if self.jobs < 1:
            raise InputError(f"`--jobs` must be at least 1: got {self.jobs}.")
        if self.out:
            refuse_existing(self.out)
        if self.figures:
            refuse_unwritable(self.figures / f"study-{study.name}")
        folder = self.folder / (f"{study.name}-fast" if self.fast else study.name)
        if self.summary:
            summary = read_study_summary(self.summary)
            if summary["study"] != study.name:
                raise InputError(f"{self.summary} is of the study {summary['study']!r}; give that name, or another file.")
        else:
            summary = run_study(study, self.folder, self.jobs, notes().print)
            write_file(folder / "summary.json", to_json(summary))
        if self.out:
            write_file(self.out, to_json(summary))
        self._print(study, summary)
        for name, figure in study_figures(study, summary):
            written = save_figure(figure, (self.figures or folder) / f"study-{study.name}-{name}")
            notes().print("wrote " + " and ".join(map(str, written)))
        return 0

    def _print(self, study: "Study", summary: dict[str, Any]) -> None:
        from looplm.cli.tables import print_table
        from looplm.lab.verdicts import study_table, verdict_lines

        console = output()
        console.print(study.title["en"] + (" (fast: these numbers answer nothing)" if self.fast else ""), style="bold")
        print_table(console, *study_table(study, summary), left=len(study.factors))
        for question, answers in verdict_lines(study, summary):
            console.print(f"\n{question}", style="bold")
            for answer in answers:
                console.print("  " + answer.replace("**", ""))
