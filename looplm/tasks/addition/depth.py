"""How deep a parallel adder thinks, what that saves, and what it costs: `python -m looplm.tasks.addition.depth measure`.

Three questions, each asked of fresh problems of 24 digits. Do loops follow the carry? How much work does halting save,
against the smallest fixed number of loops that is as accurate? What may a halted token offer to others?
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
from torch import Tensor

from looplm.evaluate.scores import TEST_KINDS, exact_match
from looplm.files import to_json, write_file
from looplm.lab.measures import questions_of, rank_correlation, solved_after_each_loop
from looplm.loop.halting import ByRole, HaltingRule
from looplm.loop.halting.fixed import Fixed
from looplm.models.looped import LoopLM, Offer
from looplm.runs.checkpoint import load
from looplm.runs.provenance import circumstances
from looplm.settings import as_table
from looplm.shapes import Float, Int
from looplm.tasks.addition.problems import PAD, Problems
from looplm.tasks.addition.sets import chain_set, test_set

SCHEMA = 1


def measure_depth(runs: Sequence[str], out: Path, *, n: int, digits: int, chains: int, seed: int) -> None:
    """Measure models one after another, and write all numbers to a new file."""
    results = [_measured(load(run), n, digits, chains, seed) for run in runs]
    write_file(out, to_json({"schema": SCHEMA, "results": results}))


def _measured(adder: Trained, n: int, digits: int, chains: int, seed: int) -> dict[str, Any]:
    """All numbers of one model."""
    halting = adder.recipe.halting
    return {
        "preset": adder.recipe.name,
        "seed": adder.provenance["seed"],
        "evaluation": {"seed": seed, "digits": digits, "settings": as_table(halting), **circumstances(adder.model.device)},
        "chain": loops_by_chain(adder, halting, digits, chains, max(1, n // 20), seed),
        "saved": work_saved(adder, halting, test_set("carry-heavy", digits, n, seed)),
        "offers": [
            {"set": kind, **row}
            for kind in adder.recipe.task.suites
            for row in offers(adder, halting, test_set(kind, digits, max(1, n // 4), seed + 1))
        ],
    }


def loops_by_chain(model: LoopLM, halting: HaltingRule, digits: int, longest: int, n: int, seed: int) -> dict[str, Any]:
    """The most loops of an answer token against the longest carry chain of the problem, chains 0 to `longest`."""
    chains, loops, points = [], [], []
    for chain in range(longest + 1):
        attempts = exact_match(model, chain_set(chain, digits, n, seed), halting)
        most = attempts.most_loops
        points.append(
            {
                "chain": chain,
                "n": n,
                "correct": int(attempts.solved.sum()),
                "mean": round(float(most.double().mean()), 3),
                "least": int(most.min()),
                "most": int(most.max()),
            }
        )
        chains.append(torch.full((n,), chain))
        loops.append(most)
    x, y = torch.cat(chains).double(), torch.cat(loops).double()
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return {
        "points": points,
        "spearman": round(rank_correlation(x, y), 4),
        "spearman_shuffled": round(rank_correlation(x, shuffled), 4),
        "loops_per_chain_digit": round(slope, 4),
    }


def work_saved(model: LoopLM, halting: HaltingRule, problems: Problems) -> dict[str, Any]:
    """Adaptive halting against the smallest fixed number of loops whose accuracy is at most 0.5 point below it.

    `full_prompt` runs every token for that number of loops; `cheap_prompt` only the answer, and lets the prompt halt by
    the model's own rule.
    """
    assert isinstance(halting, ByRole)
    adaptive = exact_match(model, problems, halting)
    n, correct = len(problems), int(adaptive.solved.sum())
    found: dict[str, Any] = {"n": n, "adaptive": _cost(adaptive.solved, adaptive.block_evaluations, adaptive.elapsed_s)}
    rules: dict[str, Callable[[int], HaltingRule]] = {
        "full_prompt": Fixed,
        "cheap_prompt": lambda loops: ByRole(Fixed(loops), halting.prompt),
    }
    for name, rule in rules.items():
        solved = solved_after_each_loop(model, problems, rule(halting.max_loops))
        counts = [int(count) for count in solved.sum(1)]
        enough = [loops for loops, count in enumerate(counts, 1) if count >= correct - 0.005 * n]
        row: dict[str, Any] = {"correct_after_each_loop": counts, "loops": enough[0] if enough else None}
        if enough:
            fixed = exact_match(model, problems, rule(enough[0]))
            row |= _cost(fixed.solved, fixed.block_evaluations, fixed.elapsed_s)
            row["times_the_work"] = round(float(fixed.block_evaluations.mean() / adaptive.block_evaluations.mean()), 3)
            row["times_the_seconds"] = round(fixed.elapsed_s / adaptive.elapsed_s, 3)
        found[name] = row
    return found


def offers(model: LoopLM, halting: HaltingRule, problems: Problems) -> list[dict[str, Any]]:
    """Accuracy and work of each choice of what a halted token offers.

    Spec: [halting.kv-publish][], [halting.kv-alternatives][].
    """
    rows = []
    for offer in get_args(Offer):
        solved, work = [], []
        for questions in questions_of(model, problems):
            thoughts = model.think(questions.tokens, halting, real=questions.tokens != PAD, answer=questions.asked, offer=offer)
            solved.append(((thoughts.logits.argmax(-1) == questions.targets) | ~questions.asked).all(1))
            work.append(block_evaluations(thoughts.loops_taken, offer, model.block.kv_share))
        rows.append({"offer": offer, "n": len(problems), **_cost(torch.cat(solved), torch.cat(work))})
    return rows


def block_evaluations(
    loops_taken: Annotated[Tensor, Int("B T")], offer: Offer, kv_share: float
) -> Annotated[Tensor, Float("B")]:
    """Work of each row, had nothing been computed that nobody reads; padding takes 0 loops.

    Spec: [halting.block-evaluations][].
    """
    later = loops_taken.flip(1).cummax(1).values.flip(1)[:, 1:]
    most_later = torch.cat((later, torch.zeros_like(loops_taken[:, :1])), 1)
    behind = (most_later - loops_taken).clamp(min=0) * (loops_taken > 0)
    extra = {
        "publish": kv_share * (behind > 0),
        "carry": 0.0 * behind,
        "recompute": kv_share * behind,
        "no-freeze": 1.0 * behind,
    }[offer]
    return (loops_taken + extra).sum(1).double()


def read_depth(path: Path) -> list[dict[str, Any]]:
    """The results that a file holds, one per model."""
    results: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["results"]
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
    header = ["offer", *(f"{kind}: {what}" for kind in TEST_KINDS for what in ("wrong", "of", "work"))]
    rows = []
    for offer in get_args(Offer):
        row = [offer]
        for kind in TEST_KINDS:
            found = [o for result in results for o in result["offers"] if (o["set"], o["offer"]) == (kind, offer)]
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
