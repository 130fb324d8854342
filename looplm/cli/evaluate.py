"""`looplm eval` and `looplm report`: numbers of trained models, and their tables and figures."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from looplm.cli.console import find_device, notes, output
from looplm.cli.halting import HaltingOptions


@dataclass(frozen=True)
class Eval:
    """Test trained models on fresh problems; the table compares them with what others measured, and with controls."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[MODEL [MODEL ...]]")]
    """Runs, checkpoints, or names of shipped models."""
    sizes: tuple[int, ...] = ()
    """Sizes of the problems, such as bits or tokens; default: those of the model's recipe."""
    n: tuple[int, ...] = (200,)
    """Problems per test set and size: one number for all sizes, or one for each."""
    seed: int = 1
    """Fixes the test sets."""
    stop: Annotated[HaltingOptions, tyro.conf.arg(name="")] = field(default_factory=HaltingOptions)
    out: Path | None = None
    """Also write the numbers as a summary; the file must not exist."""
    json: bool = False
    """Print the summary as JSON, in place of the table."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> int:
        """Evaluate each model in turn."""
        from looplm.cli.tables import print_comparison
        from looplm.errors import InputError
        from looplm.files import refuse_existing, to_json, write_file
        from looplm.runs.evaluation import evaluate_checkpoint
        from looplm.runs.results import control_results, groups_of, make_summary

        if not self.models:
            raise InputError("no model was given; give a run, a checkpoint, or the name of a shipped model, such as adder.")
        if twice := next((model for model in self.models if self.models.count(model) > 1), None):
            raise InputError(f"{twice} is given twice; give each model once.")
        if self.out:
            refuse_existing(self.out)
        if len(self.n) not in (1, len(self.sizes)) or min(self.n) < 1:
            raise InputError(f"`--n` must be one number from 1 on, or one for each of `--sizes`: got {len(self.n)} numbers.")
        counts = self.n[0] if len(self.n) == 1 else dict(zip(self.sizes, self.n, strict=True)).__getitem__
        device = find_device(self.device, self.threads)
        results = [
            evaluate_checkpoint(
                model,
                sizes=self.sizes,
                problems_per_cell=counts,
                seed=self.seed,
                halting=self.stop.resolve,
                device=device,
                on_message=notes().print,
            )
            for model in self.models
        ]
        summary = make_summary(results)
        if self.out:
            write_file(self.out, to_json(summary))
        if self.json:
            print(json.dumps(summary))
        else:
            for group in groups_of(results).values():
                print_comparison(output(), group, control_results(group[0]["preset"]))
        return 0


@dataclass(frozen=True)
class Report:
    """Print the table of one or more summaries and draw its figure; nothing is computed anew."""

    summaries: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[SUMMARY [SUMMARY ...]]")]
    """Summaries, or the runs that hold them; the first result's preset is the one that the others are compared with."""
    figure: Path | None = None
    """Draw accuracy by size to this file, as .svg and .png."""
    markdown: bool = False
    """Print the table in Markdown, in place of colours and lines."""
    out: Path | None = None
    """Also write all results as one summary; the file must not exist."""

    def run(self) -> int:
        """Render from the summary alone."""
        from looplm.cli.tables import print_comparison
        from looplm.errors import InputError
        from looplm.evaluate.figures import accuracy_figure, save_figure
        from looplm.files import refuse_existing, refuse_no_figure, to_json, write_file
        from looplm.runs.results import (
            as_markdown,
            comparison_table,
            figure_lines,
            groups_of,
            make_summary,
            others_by_size,
            ran_out_notes,
            read_summary,
            refuse_twice,
            work_note,
        )

        if not self.summaries:
            raise InputError("no summary was given; give a run folder or the summary.json of one.")
        if self.out:
            refuse_existing(self.out)
        if self.figure:
            refuse_no_figure(self.figure)
        all_results = [result for path in self.summaries for result in read_summary(path)["results"]]
        refuse_twice(all_results)
        if self.out:
            write_file(self.out, to_json(make_summary(all_results)))
        groups = groups_of(all_results)
        main = next(iter(groups))
        controls = [result for name, group in groups.items() if name != main for result in group]
        console = output()
        if self.markdown:
            table = as_markdown(*comparison_table(groups[main], controls))
            print("\n\n".join(part for part in (table, work_note(all_results), *ran_out_notes(all_results)) if part))
        else:
            print_comparison(console, groups[main], controls)
        if self.figure:
            first = groups[main][0]
            figure = accuracy_figure(
                figure_lines(groups[main], controls), tuple(first["trained_sizes"]), first["axis"], others_by_size(first)
            )
            console.print("wrote " + " and ".join(map(str, save_figure(figure, self.figure))))
        return 0
