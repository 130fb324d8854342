"""LoopLM in NumPy, written from spec/ alone: no chapter but a port, short enough to read, which meets every vector.

    python examples/numpy_port.py tests/vectors OUT     write what it gives for each vector
    looplm conform OUT                                  is it right?
Names are those of the spec and of tests/vectors/README.md; `[S, H, K]` are axes.
"""

import json
import sys
from math import cos, erf, exp, inf, sin, sqrt
from pathlib import Path

import numpy as np


class Token:
    """A token, and what it gives after each loop; of `offers`, keys and values by layer, one loop more (halting.kv-publish)."""

    def __init__(self, id, answer):
        self.id, self.answer, self.states, self.logits, self.guesses, self.offers = id, answer, [], [], [], []


class Model:
    """Any model that a configuration of the spec describes."""

    def __init__(self, config, weights):
        self.config, self.weights = config, {name: np.array(values) for name, values in weights.items()}
        self.heads, self.kv_heads = config["heads"], config.get("kv_heads", config["heads"])

    def think(self, row, rules):
        """Run the last token of a row through the loops that it takes."""
        token, earlier = row[-1], row[:-1]
        rule = rules if token.answer else rules.get("prompt", {"rule": "fixed", "max_loops": rules["max_loops"]})
        waited_for = max((len(t.states) for t in earlier if t.answer), default=0) if token.answer else 0
        learned = self.weights["positions.table.weight"][len(row) - 1] if self.config["positions"] == "learned" else 0
        x0, bias, halted = self.weights["embedding.weight"][token.id] + learned, self.bias(row), False
        h = np.zeros_like(x0)
        for l in range(1, rule["max_loops"] + 2):
            u = h + x0 if self.config["injection"] == "every" or l == 1 else h
            stream = self.block(u + self.signal(l), row, bias, l)
            if halted:
                return  # this loop was for its keys and values only
            before, h = h, self.norm("state_norm", stream) if self.config["state_norm"] else stream
            token.states.append(h)
            token.logits.append(self.weights["embedding.weight"] @ self.norm("head_norm", h))
            token.guesses.append(int(np.argmax(token.logits[-1])))  # architecture.guess: of equals, the first
            halted = l == rule["max_loops"] or (l >= rule.get("min_loops", 1) and self.ready(token, before, rule, waited_for))

    def ready(self, token, before, rule, waited_for):
        """Whether the rule holds the token ready after its newest loop."""
        kind, l, h = rule["rule"], len(token.states), token.states[-1]
        sure = [1 / np.exp(logits - logits.max()).sum() >= rule.get("threshold", 1) for logits in token.logits]
        still = np.linalg.norm(h - before) / np.linalg.norm(h) < rule.get("epsilon", 0)
        agree = l > 1 and token.guesses[-1] == token.guesses[-2]
        if kind == "fixed" or ((kind == "prefix-stability" or rule.get("in_order")) and l < waited_for):
            return False
        if kind == "gate":
            seen = h if self.config["loop_signal"] == "none" else np.concatenate([h, self.signal(l)])
            return 1 / (1 + exp(-(self.weights["gate.weight"][0] @ seen + self.weights["gate.bias"][0]))) >= rule["threshold"]
        known = token.guesses[-1] != rule.get("unknown_id")
        settled = agree and ((sure[-1] and sure[-2]) or still)
        return {"confidence": sure[-1] and known, "two-equal-argmaxes": agree, "state-change": still}.get(kind, settled)

    def signal(self, l):
        """What tells the block which loop it is in."""
        n, width = min(l, self.config["loop_signal_loops"]) - 1, self.config["width"]
        if self.config["loop_signal"] == "learned":
            return self.weights["loop_signal.table"][n]
        angles = [n * 10_000 ** (-2 * i / width) for i in range((width + 1) // 2)]
        wave = 0.3 * np.array([sin(a) for a in angles] + [cos(a) for a in angles])
        return wave[:width] if self.config["loop_signal"] == "sinusoidal" else 0

    def block(self, x, row, bias, l):
        """One pass of the last token; its keys and values of each layer are what it offers at loop l."""
        row[-1].offers.append([])
        for layer in range(self.config["layers"]):
            name = f"block.layers.{layer}"
            parts = self.weights[f"{name}.attention.qkv.weight"] @ self.norm(f"{name}.attention_norm", x)
            q, k, v = np.split(parts.reshape(-1, self.config["width"] // self.heads), [self.heads, self.heads + self.kv_heads])
            if self.config["positions"] == "rope":
                half = q.shape[1] // 2
                turn = np.exp(1j * (len(row) - 1) * self.config["rope_theta"] ** (-np.arange(half) / half))
                q, k = ((y[:, :half] + 1j * y[:, half:]) * turn for y in (q, k))  # a pair of coordinates as a complex number
                q, k = (np.hstack([y.real, y.imag]) for y in (q, k))
            row[-1].offers[-1].append((k, v))
            offered = [t.offers[min(l, len(t.states) + 1) - 1][layer] for t in row[:-1]] + [(k, v)]
            shared = np.arange(self.heads) // (self.heads // self.kv_heads)
            keys, values = (np.array(both)[:, shared] for both in zip(*offered, strict=True))  # [S, H, K]
            weight = np.exp((keys * q).sum(2) / sqrt(q.shape[1]) + bias)
            read = ((weight / weight.sum(0))[..., None] * values).sum(0)
            x = x + self.weights[f"{name}.attention.out.weight"] @ read.reshape(-1)
            x = x + self.mlp(f"{name}.mlp", self.norm(f"{name}.mlp_norm", x))
        return x

    def bias(self, row):
        """What the positions add to the last token's scores, [S, H]."""
        bias, placed = np.zeros((len(row), self.heads)), [token.id in self.config["place_ids"] for token in row]
        reach, window = self.config["place_reach"], self.config.get("place_window", inf)
        run = [placed[: t + 1].count(False) for t in range(len(row))]
        place = [sum(placed[i] for i in range(t + 1) if run[i] == run[t]) for t in range(len(row))]
        for s in range(len(row)) if self.config["positions"] == "place" else ():
            apart = place[s] - place[-1]
            bucket = max(-reach, min(reach, apart)) + reach + (2 * reach + 1) * (run[s] == run[-1])
            bias[s] = 10 * self.weights["positions.table"][bucket if placed[s] else 4 * reach + 2]
            if placed[s] and (abs(apart) > window or (self.config["place_strict"] and not placed[-1])):
                bias[s] = -inf
        return bias

    def norm(self, name, x):
        """RMSNorm or LayerNorm."""
        x, eps = x - x.mean() if self.config["norm"] == "layer" else x, self.config["norm_epsilon"]
        return x / sqrt((x * x).mean() + eps) * self.weights[f"{name}.weight"] + self.weights.get(f"{name}.bias", 0)

    def mlp(self, name, x):
        """GELU or SwiGLU."""
        if self.config["mlp"] == "swiglu":
            gate, up = np.split(self.weights[f"{name}.gate_and_up.weight"] @ x, 2)
            return self.weights[f"{name}.down.weight"] @ (gate / (1 + np.exp(-gate)) * up)
        up = self.weights[f"{name}.up.weight"] @ x
        return self.weights[f"{name}.down.weight"] @ (up * [(1 + erf(y / sqrt(2))) / 2 for y in up])


def read(model, case, b):
    """What row b of a case gives: each real token is run in turn, for what it offers is settled once it has halted."""
    row, tokens, sources = [], [Token(*both) for both in zip(case["tokens"][b], case["answer"][b], strict=True)], []
    for token in (t for t, real in zip(tokens, case["real"][b], strict=True) if real):
        model.think(row := [*row, token], case["halting"])
    while len(sources) < case["max_new_tokens"] and (not sources or sources[-1].guesses[-1] != case["stop_token"]):
        if sources:
            model.think(row := [*row, Token(sources[-1].guesses[-1], True)], case["halting"])
        sources.append(row[-1])
    gives = {"states": [[h.tolist() for h in t.states] for t in tokens], "loops_taken": [len(t.states) for t in tokens]}
    gives |= {"logits": [t.logits[-1].tolist() if t.logits else [] for t in tokens]}
    gives |= {"generated_states": [t.states[-1].tolist() for t in sources], "generated": [t.guesses[-1] for t in sources]}
    return gives | {"generated_loops_taken": [len(t.states) for t in sources]}


def run(vector):
    """The output of this port for a vector: a list of rows for each thing that a case asks for."""
    model = Model(vector["config"], vector["weights"])
    read_cases = [[read(model, case, b) for b in range(len(case["tokens"]))] for case in vector["cases"]]
    cases = [{key: [row[key] for row in rows] for key in rows[0]} for rows in read_cases]
    return {"schema": vector["schema"], "name": vector["name"], "dtype": "float64", "cases": cases}


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    for path in Path(sys.argv[1]).glob("*.json"):
        if "weights" in (document := json.loads(path.read_text())):
            (Path(sys.argv[2]) / path.name).write_text(json.dumps(run(document)))
