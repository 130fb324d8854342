"""Choosing a model that the package carries.

The choice is made on small problems; the chosen model is then tested once, on 10,000 fresh larger problems of each kind,
and that number stands whatever it is.
"""

from collections.abc import Sequence
from pathlib import Path

from looplm.files import to_json, write_file
from looplm.runs.checkpoint import find_checkpoint
from looplm.runs.evaluation import evaluate_checkpoint
from looplm.runs.results import Result, make_summary

CHOICE_PROBLEMS, CHOICE_SEED = 1000, 3
REPORT_PROBLEMS, REPORT_SEED = 10_000, 4


def ship(runs: Sequence[str], folder: Path, choice_sizes: tuple[int, ...], report_sizes: tuple[int, ...]) -> Result:
    """Put the best run's checkpoint into `folder`, with the summary of its one report; gives that result."""
    scores = {}
    for run in runs:
        result = evaluate_checkpoint(run, sizes=choice_sizes, problems_per_cell=CHOICE_PROBLEMS, seed=CHOICE_SEED)
        correct = sum(cell["correct"] for cell in result["cells"])
        work = sum(cell["block_evaluations"] for cell in result["cells"]) / len(result["cells"])
        scores[run] = (correct, -work)  # the most right answers; among equals, the least work
        print(f"{run}: {correct} of {CHOICE_PROBLEMS * len(result['cells'])} right, {work:.1f} block evaluations")
    best = max(runs, key=scores.__getitem__)
    report = evaluate_checkpoint(best, sizes=report_sizes, problems_per_cell=REPORT_PROBLEMS, seed=REPORT_SEED)
    for file in find_checkpoint(best).iterdir():
        write_file(folder / file.name, file.read_bytes())
    write_file(folder / "summary.json", to_json(make_summary([report])))
    return report
