"""Ports that are wrong in one place: each must be caught by a vector, in the wide tolerance of float32.

Each is the NumPy port of examples/ with a line or two as somebody might have written them who had read the spec in haste.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from looplm.interop.vectors import judge, read_vector, vector_names

SOURCE = (Path(__file__).parents[2] / "examples" / "numpy_port.py").read_text(encoding="utf-8")

Edits = list[tuple[str, str]]
X0 = 'self.weights["embedding.weight"][token.id] + learned'
ENTER = 'u = h + x0 if self.config["injection"] == "every" or l == 1 else h'
SIGNAL = "self.block(u + self.signal(l), row, bias, l)"
STATE = 'before, h = h, self.norm("state_norm", stream) if self.config["state_norm"] else stream'
HALTED = "            if halted:\n                return  # this loop was for its keys and values only\n"
LOOPS = 'range(1, rule["max_loops"] + 2)'
GUESS = "int(np.argmax(token.logits[-1]))"
ROLE = 'rule = rules if token.answer else rules.get("prompt", {"rule": "fixed", "max_loops": rules["max_loops"]})'
WAITS = "waited_for = max((len(t.states) for t in earlier if t.answer), default=0) if token.answer else 0"
ENTRY = "t.offers[min(l, len(t.states) + 1) - 1][layer]"
ORDER = '(kind == "prefix-stability" or rule.get("in_order")) and l < waited_for'
SETTLED = "agree and ((sure[-1] and sure[-2]) or still)"
AGREE = "agree = l > 1 and token.guesses[-1] == token.guesses[-2]"
CHANGE = "np.linalg.norm(h - before) / np.linalg.norm(h)"
SEEN = "np.concatenate([h, self.signal(l)])"
ANGLE = "n * 10_000 ** (-2 * i / width)"
WAVE = "0.3 * np.array([sin(a) for a in angles] + [cos(a) for a in angles])"
LEARNED = '["positions.table.weight"][len(row) - 1]'
TURN = 'np.exp(1j * (len(row) - 1) * self.config["rope_theta"] ** (-np.arange(half) / half))'
PAIR = "y[:, :half] + 1j * y[:, half:]"
UNPAIR = "np.hstack([y.real, y.imag])"
APART = "place[s] - place[-1]"
CLIPPED = "max(-reach, min(reach, apart))"
SAME_RUN = "(run[s] == run[-1])"
BUCKET = '10 * self.weights["positions.table"][bucket if placed[s] else 4 * reach + 2]'
HIDDEN = 'abs(apart) > window or (self.config["place_strict"] and not placed[-1])'
SCORE = "np.exp((keys * q).sum(2) / sqrt(q.shape[1]) + bias)"
SHARED = "np.arange(self.heads) // (self.heads // self.kv_heads)"
CENTRE = 'x - x.mean() if self.config["norm"] == "layer" else x'
EPS = "eps"
ROOT = f"sqrt((x * x).mean() + {EPS})"
GELU = "(1 + erf(y / sqrt(2))) / 2"
READ = '        model.think(row := [*row, token], case["halting"])\n'
WHILE = '    while len(sources) < case["max_new_tokens"] and (not sources or sources[-1].guesses[-1] != case["stop_token"]):\n'
START = "    row, tokens, sources = "
GOES_ON = "t.offers[l - 1][layer]"
PLACE = "place = [sum("
REACH = 'reach, window = self.config["place_reach"], self.config.get("place_window", inf)'
WRAPPED = "bucket % (4 * reach + 3)"
WRAPPED_TABLE = "10 * self.weights['positions.table'][bucket % len(self.weights['positions.table']) if placed[s] else -1]"
ROW_OF_SIGNAL = "[n]"
LAST = 'l == rule["max_loops"]'
REAL = 'for token in (t for t, real in zip(tokens, case["real"][b], strict=True) if real):'
ALL = 'for token, real in zip(tokens, case["real"][b], strict=True):'
SEEN_ALONE = "seen = h if"
AGAIN = """    for n, token in enumerate(fresh := [Token(t.id, True) for t in row]):
        model.think(fresh[: n + 1], case["halting"])
    row = fresh
"""
MOST = f"    most = case['max_new_tokens']\n{START}"
PADDING = f"    model.padding = case['real'][b].count(False)\n{START}"

WRONG: dict[str, dict[str, Edits]] = {
    "first-light": {
        # what a loop is
        "x0 is scaled by the root of the width": [(X0, X0.replace("[token.id]", '[token.id] * sqrt(self.config["width"])'))],
        "the state starts at x0": [("h = np.zeros_like(x0)", "h = x0")],
        "x0 is added at the first loop only": [(ENTER, "u = h + x0 if l == 1 else h")],
        "no loop signal": [(SIGNAL, "self.block(u, row, bias, l)")],
        "the loop is counted from 1 in the signal": [(ANGLE, ANGLE.replace("n *", "(n + 1) *"))],
        "the signal goes on beyond its loops": [(ANGLE, ANGLE.replace("n *", "(l - 1) *"))],
        "the signal is not made smaller": [(WAVE, WAVE.replace("0.3 * ", ""))],
        "sines and cosines take turns": [(WAVE, "0.3 * np.array([f(a) for a in angles for f in (sin, cos)])")],
        "the signal is rounded to float32": [(WAVE, f"({WAVE}).astype(np.float32)")],
        "no state norm": [(STATE, "before, h = h, stream")],
        "the head reads the state without its norm": [('self.norm("head_norm", h)', "h")],
        "the MLP reads what attention read": [('f"{name}.mlp_norm", x)', 'f"{name}.attention_norm", x)')],
        "GELU by its tangent": [(GELU, "(1 + np.tanh(sqrt(2 / np.pi) * (y + 0.044715 * y**3))) / 2")],
        "scores are not scaled": [(SCORE, SCORE.replace(" / sqrt(q.shape[1])", ""))],
        "scores are scaled by the whole width": [(SCORE, SCORE.replace("q.shape[1]", 'self.config["width"]'))],
        "a token does not see itself": [
            (SCORE, f"{SCORE} * np.array([[t < len(row) - 1 or t == 0] for t in range(len(row))])")
        ],
        # places
        "places from 0": [(PLACE, PLACE.replace("sum(", "-placed[t] + sum("))],
        "`=` belongs to the run before it": [(SAME_RUN, "(run[s] == run[-1] - (not placed[-1]))")],
        "runs are not told apart": [(SAME_RUN, "1")],
        "the difference of places the other way round": [(APART, "place[-1] - place[s]")],
        "the table is not scaled": [(BUCKET, BUCKET.replace("10 * ", ""))],
        "keys outside runs have the bucket of place 0": [(BUCKET, BUCKET.replace(" if placed[s] else 4 * reach + 2", ""))],
        "the window is one place narrower": [(HIDDEN, HIDDEN.replace("> window", ">= window"))],
        "the window is one place wider": [(HIDDEN, HIDDEN.replace("> window", "> window + 1"))],
        "no window": [(HIDDEN, HIDDEN.replace("abs(apart) > window", "False"))],
        "the window is for queries in runs only": [(HIDDEN, HIDDEN.replace("abs(apart)", "placed[-1] * abs(apart)"))],
        "place_strict is always on": [(HIDDEN, HIDDEN.replace('self.config["place_strict"]', "True"))],
        # what a halted token offers
        "carry": [(ENTRY, ENTRY.replace(" + 1)", ")"))],
        "recompute": [(LOOPS, "range(1, 12)"), (HALTED, HALTED.replace("return", "continue")), (ENTRY, GOES_ON)],
        "no-freeze": [
            (LOOPS, "range(1, 12)"),
            (HALTED, ""),
            (f"            {STATE}\n", f"            {STATE}\n{HALTED.replace('return', 'continue')}"),
            (ENTRY, GOES_ON),
        ],
        "carry while generating only": [(WHILE, f"    for t in row:\n        t.offers[-1] = t.offers[-2]\n{WHILE}")],
        "the last pass has the signal of the loop before": [(SIGNAL, SIGNAL.replace("signal(l)", "signal(l - halted)"))],
        "the last pass has no x0": [(ENTER, f"{ENTER}\n            u = h if halted else u")],
        # roles
        "every token is the answer's": [(ROLE, ROLE.replace("token.answer", "True"))],
        "every token is the prompt's": [(ROLE, ROLE.replace("token.answer", "False"))],
        "a prompt without a rule has the answer's": [(ROLE, 'rule = rules if token.answer else rules.get("prompt", rules)')],
        "a prompt without a rule runs one loop": [(ROLE, ROLE.replace('rules["max_loops"]', "1"))],
        "the prompt's own rule is ignored": [(ROLE, ROLE.replace('rules.get("prompt", {', "({"))],
        "the prompt is free while generating": [(WHILE, f"{AGAIN}{WHILE}")],
        "the last token of the prompt is the prompt's": [(READ, f"        token.answer &= not most\n{READ}"), (START, MOST)],
        "new tokens are the prompt's": [("Token(sources[-1].guesses[-1], True)", "Token(sources[-1].guesses[-1], False)")],
        # rules
        "one argmax is two equal ones": [(AGREE, "agree = len(set(token.guesses[-2:])) == 1")],
        "three equal argmaxes": [(AGREE, "agree = l > 2 and len(set(token.guesses[-3:])) == 1")],
        "an argmax seen before": [(AGREE, "agree = token.guesses[-1] in token.guesses[:-1]")],
        "confidence of two loops": [('"confidence": sure[-1]', '"confidence": all(sure[-2:])')],
        "confidence is the logit": [("1 / np.exp(logits - logits.max()).sum() >=", "logits.max() >=")],
    },
    "parallel": {
        "one head of keys and values serves all": [(SHARED, f"0 * ({SHARED})")],
        "heads of keys and values are shared by turns": [(SHARED, "np.arange(self.heads) % self.kv_heads")],
        "gate and up are exchanged": [("gate, up = np.split", "up, gate = np.split")],
        "the reach is not clipped": [(CLIPPED, "apart"), (BUCKET, BUCKET.replace("bucket if", f"{WRAPPED} if"))],
        "the reach is the window": [(REACH, 'reach, window = 2 * [self.config["place_window"]]'), (BUCKET, WRAPPED_TABLE)],
        "place_strict is ignored": [(HIDDEN, HIDDEN.replace('self.config["place_strict"]', "False"))],
        "prefix stability asks the newest confidence only": [(SETTLED, SETTLED.replace("(sure[-1] and sure[-2])", "sure[-1]"))],
        "prefix stability without confidence": [(SETTLED, "agree and still")],
        "prefix stability without change": [(SETTLED, "agree and sure[-1] and sure[-2]")],
        "prefix stability without agreement": [(SETTLED, "l > 1 and ((sure[-1] and sure[-2]) or still)")],
        "prefix stability in any order": [(ORDER, 'rule.get("in_order") and l < waited_for')],
        "prefix stability for the prompt needs an answer": [
            (ORDER, f"{ORDER} or (kind == 'prefix-stability' and not token.answer)")
        ],
        "in_order is ignored": [(ORDER, 'kind == "prefix-stability" and l < waited_for')],
        "in order, later by a loop": [(ORDER, ORDER.replace("l <", "l <="))],
        "answers wait for the prompt": [(WAITS, WAITS.replace(" if t.answer", ""))],
        "the prompt waits too": [(WAITS, "waited_for = max((len(t.states) for t in earlier), default=0)")],
        "min_loops is ignored": [('rule.get("min_loops", 1)', "1")],
        "min_loops counts from 0": [('l >= rule.get("min_loops", 1)', 'l > rule.get("min_loops", 0)')],
        "the change is not relative": [(CHANGE, CHANGE.replace(" / np.linalg.norm(h)", ""))],
    },
    "rope-two-layers": {
        "x0 is added at every loop": [(ENTER, "u = h + x0")],
        "the learned signal begins again after its loops": [(ROW_OF_SIGNAL, '[(l - 1) % self.config["loop_signal_loops"]]')],
        "all layers are the first": [('f"block.layers.{layer}"', '"block.layers.0"')],
        "RoPE turns neighbours": [
            (PAIR, "y[:, ::2] + 1j * y[:, 1::2]"),
            (UNPAIR, "np.dstack([y.real, y.imag]).reshape(len(y), -1)"),
        ],
        "RoPE turns the other way": [(TURN, TURN.replace("1j", "-1j"))],
        "RoPE turns queries only": [(f"({PAIR}) * turn", f"({PAIR}) * (turn if y is q else 1)")],
        "RoPE with another base": [(TURN, TURN.replace('self.config["rope_theta"]', "500_000.0"))],
        "padding is read": [(REAL, ALL), (READ, READ.replace("token]", "token if real else Token(token.id, False)]"))],
        "deeper layers carry": [(ENTRY, ENTRY.replace("+ 1)", "+ (layer == 0))"))],
        "the last pass reads what others offered a loop before": [(SIGNAL, SIGNAL.replace("bias, l)", "bias, l - halted)"))],
        "max_loops is the prompt's too": [(LOOPS, LOOPS.replace("rule[", "rules[")), (LAST, LAST.replace("rule[", "rules["))],
        "the change is relative to the state before": [(CHANGE, CHANGE.replace("norm(h)", "norm(before + (l == 1))"))],
        "the change is the largest of a coordinate": [(CHANGE, "abs(h - before).max() / abs(h).max()")],
    },
    "small-layer-norm": {
        "no eps in LayerNorm": [(ROOT, ROOT.replace("+ ", '+ (self.config["norm"] != "layer") * '))],
        "eps of 1e-5 in LayerNorm": [(ROOT, ROOT.replace("+ ", "+ 10 * "))],
        "the variance of a sample": [(ROOT, ROOT.replace("mean()", "sum() / (len(x) - 1)"))],
        "LayerNorm keeps the mean": [(CENTRE, "x")],
        "LayerNorm without shift": [('self.weights.get(f"{name}.bias", 0)', "0")],
        "positions from 1": [(LEARNED, LEARNED.replace(" - 1", ""))],
        "padding counts in positions": [(LEARNED, LEARNED.replace(" - 1", " - 1 + self.padding")), (START, PADDING)],
    },
    "gate": {
        "the gate does not see the signal": [(SEEN, SEEN.replace("self.signal(l)", "0 * h"))],
        "the gate sees the next signal": [(SEEN, SEEN.replace("(l)", "(l + 1)"))],
        "the gate sees the signal first": [(SEEN, "np.concatenate([self.signal(l), h])")],
        "the gate has no bias": [(' + self.weights["gate.bias"][0]', "")],
        "the gate has no logistic": [("1 / (1 + exp(-(", "((("), ('["gate.bias"][0])))', '["gate.bias"][0])))')],
        "in_order is for other rules": [
            (ORDER, ORDER.replace('rule.get("in_order")', 'rule.get("in_order") and kind != "gate"'))
        ],
    },
    "ties": {
        "of equals the highest id": [(GUESS, "int(len(token.logits[-1]) - 1 - np.argmax(token.logits[-1][::-1]))")],
        "unknown_id is ignored": [(" and known", "")],
        "a token that does not know halts": [("and known", "or not known")],
        "no window is a window of 0": [('self.config.get("place_window", inf)', 'self.config.get("place_window", 0)')],
    },
    "small": {
        "no eps in RMSNorm": [(ROOT, "sqrt((x * x).mean())")],
        "eps of 1e-5 in RMSNorm": [(ROOT, ROOT.replace("+ ", "+ 10 * "))],
        "eps outside the root": [(ROOT, f"(sqrt((x * x).mean()) + {EPS})")],
        "RMSNorm takes the mean away": [(CENTRE, "x - x.mean()")],
        "a gate without a signal sees zeros and ones": [(SEEN_ALONE, "seen = h + 1 if")],
    },
    "static": {
        "a state norm where there is none": [(STATE, STATE.replace("else stream", 'else self.norm("head_norm", stream)'))],
        "generation goes on after the stop token": [(WHILE, WHILE.split(" and (not")[0] + ":\n")],
    },
}


def port(edits: Edits) -> dict[str, Any]:
    """The port with these edits, as a module's names."""
    source = SOURCE
    for old, new in edits:
        assert source.count(old) == 1, f"examples/numpy_port.py has {source.count(old)} times: {old}"
        source = source.replace(old, new)
    names: dict[str, Any] = {"__name__": "port"}
    exec(compile(source, "wrong_port.py", "exec"), names)
    return names


def catches(vector: dict[str, Any], edits: Edits, dtype: str) -> bool:
    """Whether some case of the vector differs from what the port makes of it."""
    run = port(edits)["run"]
    with np.errstate(all="ignore"):
        for case in vector["cases"]:
            alone = vector | {"cases": [case]}
            if judge(alone, run(alone) | {"dtype": dtype}).first:
                return True
    return False


@pytest.mark.parametrize("vector", vector_names())
def test_the_port_itself_is_right(vector: str) -> None:
    assert not catches(read_vector(vector), [], "float64")


@pytest.mark.parametrize(("vector", "name"), [(vector, name) for vector in WRONG for name in WRONG[vector]])
def test_a_wrong_port_is_caught(vector: str, name: str) -> None:
    assert catches(read_vector(vector), WRONG[vector][name], "float64" if "float32" in name else "float32")
