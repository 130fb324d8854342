"""Choose an adder that the package carries: `python -m looplm.runs.ship NAME RUN...`.

The choice is made on sums of at most 8 digits; the chosen model is then tested once, on 10,000 fresh sums of 12 digits
of each kind, and that number stands whatever it is.
"""

import sys
from pathlib import Path

from looplm.runs.checkpoint import find_checkpoint
from looplm.runs.evaluation import evaluate_checkpoint
from looplm.runs.results import Result, make_summary
from looplm.files import to_json, write_file
from looplm.resources import asset

CHOICE_DIGITS = (1, 2, 3, 4, 5, 6, 7, 8)
CHOICE_PROBLEMS, CHOICE_SEED = 1000, 3
REPORT_DIGITS = (12,)
REPORT_PROBLEMS, REPORT_SEED = 10_000, 4


def ship(runs: list[str], folder: Path) -> Result:
    """Put the best run's checkpoint into `folder`, with the summary of its one report; gives that result."""
    scores = {}
    for run in runs:
        result = evaluate_checkpoint(run, digits=CHOICE_DIGITS, problems_per_cell=CHOICE_PROBLEMS, seed=CHOICE_SEED)
        correct = sum(cell["correct"] for cell in result["cells"])
        work = sum(cell["block_evaluations"] for cell in result["cells"]) / len(result["cells"])
        scores[run] = (correct, -work)  # the most right answers; among equals, the least work
        print(f"{run}: {correct} of {CHOICE_PROBLEMS * len(result['cells'])} right, {work:.1f} block evaluations")
    best = max(runs, key=scores.__getitem__)
    report = evaluate_checkpoint(best, digits=REPORT_DIGITS, problems_per_cell=REPORT_PROBLEMS, seed=REPORT_SEED)
    for file in find_checkpoint(best).iterdir():
        write_file(folder / file.name, file.read_bytes())
    write_file(folder / "summary.json", to_json(make_summary([report])))
    return report


if __name__ == "__main__":
    for cell in ship(sys.argv[2:], asset(sys.argv[1]))["cells"]:
        print(f"{cell['set']}, {cell['digits']} digits: {cell['correct']} of {cell['n']} right")
