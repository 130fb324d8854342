"""How deep a parallel adder thinks, what that saves, and what it costs: `looplm depth`.

Three questions, each asked of fresh problems. Do loops follow the carry? How much work does halting save, against the
smallest fixed number of loops that is as accurate? What may a halted token offer to others?
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from looplm.errors import InputError
from looplm.evaluate.scores import exact_match, solved, solved_after_each_loop
from looplm.files import to_json, write_file
from looplm.loop.halting import ByRole, HaltingRule, as_table
from looplm.loop.halting.fixed import Fixed
from looplm.loop.work import Offer, block_evaluations
from looplm.models.body import Body
from looplm.models.looped import looped
from looplm.runs.checkpoint import Trained, load
from looplm.runs.provenance import circumstances
from looplm.task import Batch
from looplm.tasks.addition.chains import by_chain
from looplm.tasks.addition.solve import task_of

SCHEMA = 1
_LEEWAY = 0.005
"""Share of the problems by which a fixed number of loops may fall short of adaptive halting and still count as accurate."""
_ROWS = 50


def measure_depth(runs: Sequence[str], out: Path, *, n: int, digits: int, chains: int, seed: int) -> None:
    """Measure adders one after another, and write all numbers to a new file.

    Args:
        runs: what `looplm.load` takes.
        out: the file.
        n: problems of each set; a twentieth of it for each length of chain, a quarter for each kind of offer.
        digits: of the operands.
        chains: the longest that is asked for.
        seed: of the problems.

    Raises:
        InputError: if one of them is no adder; nothing is measured then.
    """
    adders = [load(run) for run in runs]
    for adder in adders:
        task_of(adder)
    results = [_measured(adder, n, digits, chains, seed) for adder in adders]
    write_file(out, to_json({"schema": SCHEMA, "results": results}))


def _measured(adder: Trained, n: int, digits: int, chains: int, seed: int) -> dict[str, Any]:
    """All numbers of one model."""
    task, halting = adder.recipe.task, adder.recipe.halting
    return {
        "preset": adder.recipe.name,
        "seed": adder.provenance["seed"],
        "evaluation": {"seed": seed, "digits": digits, "settings": as_table(halting), **circumstances(adder.model.device)},
        "chain": by_chain(adder, range(chains + 1), digits, max(1, n // 20), seed),
        "saved": work_saved(adder.model, halting, task.suite("carry-heavy", digits, n, seed)),
        "offers": [
            {"set": name, **row}
            for name in task.suites
            for row in offers(adder.model, halting, task.suite(name, digits, max(1, n // 4), seed + 1))
        ],
    }


def work_saved(model: Body, halting: ByRole, problems: Batch) -> dict[str, Any]:
    """Adaptive halting against the smallest fixed number of loops whose accuracy is at most half a point below it.

    `full_prompt` runs every token for that number of loops; `cheap_prompt` only the answer, and lets the prompt halt by
    the model's own rule.
    """
    adaptive = exact_match(model, problems, halting)
    n, correct = len(problems), int(adaptive.solved.sum())
    found: dict[str, Any] = {"n": n, "adaptive": _cost(adaptive.solved, adaptive.block_evaluations, adaptive.elapsed_s)}
    rules: dict[str, Callable[[int], HaltingRule]] = {
        "full_prompt": Fixed,
        "cheap_prompt": lambda loops: ByRole(Fixed(loops), halting.prompt),
    }
    for name, rule in rules.items():
        counts = [int(count) for count in solved_after_each_loop(model, problems, rule(halting.max_loops)).sum(1)]
        enough = [loops for loops, count in enumerate(counts, 1) if count >= correct - _LEEWAY * n]
        row: dict[str, Any] = {"correct_after_each_loop": counts, "loops": enough[0] if enough else None}
        if enough:
            fixed = exact_match(model, problems, rule(enough[0]))
            row |= _cost(fixed.solved, fixed.block_evaluations, fixed.elapsed_s)
            row["times_the_work"] = round(float(fixed.block_evaluations.mean() / adaptive.block_evaluations.mean()), 3)
            row["times_the_seconds"] = round(fixed.elapsed_s / adaptive.elapsed_s, 3)
        found[name] = row
    return found


def offers(model: Body, halting: HaltingRule, problems: Batch) -> list[dict[str, Any]]:
    """Accuracy and work of each choice of what a halted token offers.

    Spec: [halting.kv-publish][], [halting.kv-alternatives][].
    """
    rows, model = [], looped(model, "what a halted token offers")
    for offer in get_args(Offer):
        right, work = [], []
        for part in (part.to(model.device) for part in problems.parts(_ROWS)):
            thoughts = model.think(part.tokens, halting, real=part.real, answer=part.scored, offer=offer)
            right.append(solved(thoughts.logits.argmax(-1), part))
            work.append(block_evaluations(thoughts.loops_taken, model.block.kv_share, offer))
        rows.append({"offer": offer, "n": len(problems), **_cost(torch.cat(right), torch.cat(work))})
    return rows


def read_depth(path: Path) -> list[dict[str, Any]]:
    """The results that a file holds, one for each model.

    Raises:
        InputError: if it is missing, or no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        found = None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not isinstance(found.get("results"), list):
        raise InputError(f"{path} holds no measurements of schema {SCHEMA}; `looplm depth RUN --out {path}` writes some.")
    results: list[dict[str, Any]] = found["results"]
    return results


Table = tuple[list[str], list[list[str]]]


def saved_table(results: Sequence[dict[str, Any]]) -> Table:
    """Per seed: accuracy and work with halting, and of the smallest fixed count that is about as accurate."""
    header = ["seed", "right, %", "work", "full prompt: loops", "right, %", "work", "times", "cheap prompt: loops"]
    header += ["right, %", "work", "times"]
    rows = []
    for result in results:
        saved = result["saved"]
        own, row = saved["adaptive"], [str(result["seed"])]
        row += [_percent(own["correct"], saved["n"]), f"{own['block_evaluations']:.0f}"]
        for kind in ("full_prompt", "cheap_prompt"):
            fixed = saved[kind]
            if fixed["loops"] is None:
                row += ["none", "", "", ""]
            else:
                row += [str(fixed["loops"]), _percent(fixed["correct"], saved["n"])]
                row += [f"{fixed['block_evaluations']:.0f}", f"{fixed['times_the_work']:.2f}"]
        rows.append(row)
    return header, rows


def chain_table(results: Sequence[dict[str, Any]]) -> Table:
    """Per seed: rank correlation of loops and chain, the same shuffled, and the slope."""
    header = ["seed", "Spearman", "shuffled", "loops per chain place", "right, %"]
    rows = []
    for result in results:
        chain = result["chain"]
        solved, asked = (sum(point[name] for point in chain["points"]) for name in ("correct", "n"))
        row = [f"{chain[name]:.3f}" for name in ("spearman", "spearman_shuffled", "loops_per_chain_digit")]
        rows.append([str(result["seed"]), *row, _percent(solved, asked)])
    return header, rows


def offers_table(results: Sequence[dict[str, Any]]) -> Table:
    """Each choice of what a halted token offers: wrong answers and work, all seeds together."""
    sets = list(dict.fromkeys(row["set"] for result in results for row in result["offers"]))
    header = ["offer", *(f"{name}: {what}" for name in sets for what in ("wrong", "of", "work"))]
    rows = []
    for offer in get_args(Offer):
        row = [offer]
        for name in sets:
            found = [o for result in results for o in result["offers"] if (o["set"], o["offer"]) == (name, offer)]
            n = sum(o["n"] for o in found)
            work = sum(o["block_evaluations"] * o["n"] for o in found) / n
            row += [str(n - sum(o["correct"] for o in found)), str(n), f"{work:.0f}"]
        rows.append(row)
    return header, rows


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}"


def _cost(solved: Tensor, work: Tensor, elapsed_s: float | None = None) -> dict[str, Any]:
    cost = {"correct": int(solved.sum()), "block_evaluations": round(float(work.mean()), 2)}
    return cost if elapsed_s is None else cost | {"elapsed_s": round(elapsed_s, 2)}
