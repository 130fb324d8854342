"""Accuracy and work under each of some halting rules: the frontier."""

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from looplm.evaluate.scores import exact_match
from looplm.lab.measures import Count, Measured
from looplm.loop.halting import ByRole
from looplm.runs.checkpoint import Trained
from looplm.settings import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rules:
    """`right.RULE.SET.SIZE` and `rule_work.RULE.SET.SIZE` of each rule, held-out set and size; a row of notes for each."""

    rules: dict[str, ByRole]
    """By any name, tables as of a recipe's `[halting]`. What reads a gate is passed over where the model has none."""
    sizes: tuple[Count, ...] = Field(min_length=1)
    n: Count
    """Problems of each set and size, the same for all rules."""
    seed: int

    def __call__(self, trained: Trained, run: Path) -> Measured:
        """Every rule that the model can follow."""
        model, task = trained.model, trained.recipe.task
        rules = {name: rule for name, rule in self.rules.items() if model.gate is not None or not rule.gate_readers}
        rows: list[dict[str, Any]] = []
        for name in task.suites:
            for size in self.sizes:
                problems = task.suite(name, size, self.n, self.seed)
                for rule, halting in rules.items():
                    attempts = exact_match(model, problems, halting)
                    row = {"set": name, "size": size, "n": self.n, "rule": rule, "correct": int(attempts.solved.sum())}
                    rows.append(row | {"work": round(float(attempts.block_evaluations.mean()), 2)})
        values = {f"right.{row['rule']}.{row['set']}.{row['size']}": row["correct"] / self.n for row in rows}
        values |= {f"rule_work.{row['rule']}.{row['set']}.{row['size']}": row["work"] for row in rows}
        return Measured(values, notes={"rows": rows})


CHOICE = Rules
