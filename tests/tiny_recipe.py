"""A recipe that trains in a moment, a run of it, one that is cut off, and what must be equal of two runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from looplm.runs.run import Keeping, run_recipe
from looplm.settings import merge
from looplm.train.recipe import Recipe, load_recipe
from looplm.train.trainer import Step

TINY: dict[str, Any] = {
    "model": {"width": 8, "heads": 2, "mlp_width": 16},
    "training": {"steps": 6, "batch_size": 4, "dropout": 0.1, "schedule": {"warmup_steps": 2}},
    "evaluation": {"sizes": [2, 3], "problems_per_cell": 4},
}


def tiny(name: str = "first-light", **changes: Any) -> Recipe:
    return load_recipe(name, merge(TINY, changes))


def outcome(run: Path) -> dict[str, Any]:
    """All that a run comes to, without clock times: weights, log, numbers, trace, report."""
    (result,) = json.loads((run / "summary.json").read_text())["results"]
    for cell in result["cells"]:
        del cell["elapsed_s"]
    timed = ("elapsed_s", "tokens_per_s")
    result["training"] = {name: value for name, value in result["training"].items() if name not in timed}
    return {
        "files": sorted(str(path.relative_to(run)) for path in run.rglob("*")),
        "weights": (run / "checkpoint" / "model.safetensors").read_bytes(),
        "log": steps_of(run),
        "result": result,
        "trace": json.loads((run / "trace.json").read_text()),
        "config": (run / "config.toml").read_text(),
    }


def steps_of(run: Path) -> list[dict[str, Any]]:
    """The log's steps, without clock times."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()[1:]]
    return [{name: value for name, value in line.items() if name != "elapsed_s"} for line in lines]


CPU = torch.device("cpu")
SEED = 5


class Killed(BaseException):
    """As sudden as SIGKILL, to all that is tested here; tests/runs/test_chaos.py sends the real one."""


def run(folder: Path, recipe: Recipe | None = None, *, resume: bool = False, seed: int = SEED, **keeping: Any) -> Any:
    kept = Keeping(checkpoint_every=2, **keeping)
    return run_recipe(recipe or tiny(), seed, folder, CPU, keeping=kept, resume=resume)


def killed_at(number: int) -> Callable[[Step], None]:
    def kill(step: Step) -> None:
        if step.step == number:
            raise Killed

    return kill


def begun(folder: Path, at: int = 5, recipe: Recipe | None = None, seed: int = SEED) -> Path:
    """A run that was killed after a step."""
    with pytest.raises(Killed):
        run(folder, recipe, seed=seed, on_step=killed_at(at))
    return folder
