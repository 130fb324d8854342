"""What the live page thinks with, as a script, because a page on a disk cannot fetch files: adders, and a few sums."""

import base64
import json
from typing import Any

from looplm.runs.checkpoint import find_checkpoint, read_card
from looplm.tasks.addition.sets import test_set

SCRIPT = "assets/live/adders.js"
"""Staged; names the adders `looplmAdders` and the sums `looplmSums`."""
ADDERS = ("adder", "parallel-adder")
"""Shipped models that the page can run."""
ADDERS = ("adder", "parallel-adder")
"""Shipped models that the page can run."""
_DIGITS, _SUMS, _SEED = 8, 60, 0


def script() -> str:
    """The script: each adder's settings and weights, and carry-heavy sums that no training has seen.

    Spec: [addition.carry-heavy-set][].
    """
    adders = {name: card(name) for name in ADDERS}
    sums = ["+".join(pair) for pair in test_set("carry-heavy", _DIGITS, _SUMS, _SEED).numbers()]
    return f"globalThis.looplmAdders = {json.dumps(adders)};\nglobalThis.looplmSums = {json.dumps(sums)};\n"


def card(name: str) -> dict[str, Any]:
    """An adder's settings, and its weights in base64."""
    recipe = read_card(name)["recipe"]
    weights = base64.b64encode((find_checkpoint(name) / "model.safetensors").read_bytes()).decode()
    mode = recipe["task"].get("mode", "left-to-right")
    return {"model": recipe["model"], "mode": mode, "halting": recipe["halting"], "weights": weights}
