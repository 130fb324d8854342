"""Makes the conformance vectors: `looplm conform --write FOLDER`.

Expected numbers are computed in float64, each row alone and read at once, from weights that float32 holds exactly. Nothing
that is decided is near its threshold, so every decision is the same in float32. tests/vectors/README.md says how to read a
vector.
"""

import json
import math
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from looplm.config import ModelConfig
from looplm.files import refuse_unwritable, write_file
from looplm.interop.vectors import SCHEMA
from looplm.loop.cache import KVCache
from looplm.loop.halting import ByRole, HaltingRule, parse_halting
from looplm.loop.halting.gate import Gate
from looplm.loop.halting.prefix_stability import PrefixStability
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.settings import as_table, parse
from looplm.think.generate import generate

STOP, PAD = 13, 14
SYMBOLS = "0123456789+=^$ _"
"""One character for each id: `^` begins a text, `$` ends it, `_` is a slot."""
MARGINS = {"guess": 0.05, "threshold": 0.01, "epsilon": 0.02}
"""How far every decision is from tipping, at least: nats between the two best ids, a probability, a share of epsilon."""
SMALL = 2**-8


@dataclass(frozen=True)
class Asked:
    """One case: what is read, and how."""

    texts: tuple[str, ...]
    """In SYMBOLS; shorter ones are padded on the left."""
    halting: dict[str, Any]
    """As in a recipe."""
    new: int = 0
    """Tokens to generate; a text that is gone on with ends in the token that the first is read from."""
    all_answer: bool = False
    """Every token is the answer's, not only the slots, or without slots what stands from `=` on."""

    @property
    def rule(self) -> ByRole:
        """The rules of that table."""
        return parse_halting(self.halting, where="a case")


@dataclass(frozen=True)
class Plan:
    """One vector."""

    config: ModelConfig
    seed: int
    """Of the weights: the first for which every decision keeps its margin; `search` finds it."""
    cases: tuple[Asked, ...]
    scales: dict[str, float] = field(default_factory=dict)
    """Weights whose name contains this are so many times as large."""
    tied: tuple[int, int, int, int] | None = None
    """Two ids of one embedding, which is this size in this coordinate and else 0: their logits are equal bit for bit."""


def _model(**settings: Any) -> ModelConfig:
    return ModelConfig(**{"vocab_size": 15, "width": 8, "heads": 2, "mlp_width": 12} | settings)


def _rule(rule: str, max_loops: int, **settings: Any) -> dict[str, Any]:
    return {"rule": rule, "max_loops": max_loops, **settings}


_PLACES: dict[str, Any] = {"positions": "place", "place_ids": tuple(range(10))}
_TINY = {"embedding": SMALL, "positions": SMALL, "attention.out": SMALL, "mlp.down": SMALL, "head_norm": 2 / SMALL}
_ONE, _TWO, _ALL = ("^87+95=",), ("^30+006=", "^5+4="), ("^87+95=28",)

PLANS: dict[str, Plan] = {
    "first-light": Plan(
        _model(**_PLACES, place_window=1, loop_signal="sinusoidal", loop_signal_loops=4),
        seed=116,
        cases=(
            Asked(_ONE, _rule("fixed", 7), new=3),
            Asked(_ALL, _rule("two-equal-argmaxes", 6), all_answer=True),
            Asked(_TWO, _rule("two-equal-argmaxes", 6), new=4),
            Asked(_TWO, _rule("two-equal-argmaxes", 6, prompt=_rule("two-equal-argmaxes", 4)), new=3),
            Asked(("^12+34=",), _rule("confidence", 5, threshold=0.6, prompt=_rule("confidence", 5, threshold=0.3)), new=3),
        ),
    ),
    "parallel": Plan(
        _model(
            positions="place",
            place_ids=(*range(10), SYMBOLS.index("_")),
            vocab_size=16,
            heads=4,
            kv_heads=2,
            mlp="swiglu",
            place_reach=1,
            place_window=3,
            place_strict=True,
            loop_signal="sinusoidal",
            loop_signal_loops=3,
        ),
        seed=1180,
        cases=(
            Asked(("^8795+954=______",), _rule("prefix-stability", 6, threshold=0.5, epsilon=0.1)),
            Asked(
                ("^87+95=____", "^5+4=___"),
                _rule("prefix-stability", 6, threshold=0.99, epsilon=0.6, prompt=_rule("state-change", 4, epsilon=0.7)),
            ),
            Asked(("^87+95=____",), _rule("confidence", 6, threshold=0.4, unknown_id=15, prompt=_rule("fixed", 2))),
            Asked(
                ("^87+95=____",),
                _rule(
                    "two-equal-argmaxes",
                    6,
                    min_loops=3,
                    in_order=True,
                    prompt=_rule("prefix-stability", 5, threshold=0.5, epsilon=0.5),
                ),
            ),
            Asked(("^87+95=____",), _rule("confidence", 6, threshold=0.5, in_order=True, prompt=_rule("fixed", 2))),
        ),
    ),
    "rope-two-layers": Plan(
        _model(
            layers=2, kv_heads=1, mlp="swiglu", positions="rope", injection="first", loop_signal="learned", loop_signal_loops=2
        ),
        seed=63,
        cases=(
            Asked(_ALL, _rule("two-equal-argmaxes", 6), all_answer=True),
            Asked(_TWO, _rule("state-change", 5, epsilon=0.5, prompt=_rule("two-equal-argmaxes", 4)), new=3),
            Asked(("^12+3=",), _rule("fixed", 4, prompt=_rule("fixed", 2)), new=3),
        ),
    ),
    "small-layer-norm": Plan(
        _model(norm="layer", positions="learned", max_positions=16),
        seed=54,
        cases=(
            Asked(_ALL, _rule("state-change", 5, min_loops=2, epsilon=0.8), all_answer=True),
            Asked(_TWO, _rule("two-equal-argmaxes", 5), new=3),
        ),
        scales=_TINY,
    ),
    "gate": Plan(
        _model(positions="none", gate=True, loop_signal="sinusoidal", loop_signal_loops=3),
        seed=123,
        cases=(
            Asked(_ALL, _rule("gate", 5, threshold=0.5), all_answer=True),
            Asked(_TWO, _rule("gate", 5, threshold=0.6, prompt=_rule("gate", 4, threshold=0.4)), new=3),
            Asked(("^87+95=2800",), _rule("gate", 5, threshold=0.5, in_order=True, min_loops=2)),
        ),
        scales={"gate": 4},
    ),
    "ties": Plan(
        _model(**_PLACES),
        seed=249,
        cases=(
            Asked(("^87+35=",), _rule("confidence", 4, threshold=0.3, unknown_id=3), new=4),
            Asked(("^93+9=",), _rule("two-equal-argmaxes", 5), new=4),
        ),
        tied=(3, 9, 2, 1),
    ),
    "small": Plan(
        _model(positions="none", state_norm=False, gate=True, mlp="swiglu"),
        seed=26,
        cases=(
            Asked(_ALL, _rule("gate", 5, threshold=0.5), all_answer=True),
            Asked(_TWO, _rule("fixed", 2, prompt=_rule("fixed", 3)), new=3),
        ),
        scales=_TINY | {"gate.weight": 1 / SMALL},
    ),
    "static": Plan(
        _model(body="static", layers=3, positions="none", state_norm=False),
        seed=0,
        cases=(Asked(_ALL, _rule("fixed", 1), all_answer=True), Asked(_TWO, _rule("fixed", 1), new=3)),
    ),
}


def make_vector(name: str) -> dict[str, Any]:
    """One vector: configuration, weights, and what each case must give."""
    plan = PLANS[name]
    model = _model_of(plan, plan.seed)
    made = [_case(model, asked) for asked in plan.cases]
    assert min(margin for _, margin in made) >= 1, f"{name}: a decision is near its threshold; take another seed (`search`)"
    weights = {key: value.tolist() for key, value in model.state_dict().items()}
    return {
        "schema": SCHEMA,
        "name": name,
        "config": as_table(plan.config),
        "weights": weights,
        "cases": [case for case, _ in made],
    }


def search(name: str) -> int:
    """The first seed that gives every decision its margin."""
    plan = PLANS[name]
    for seed in count():
        model = _model_of(plan, seed)
        if all(_case(model, asked)[1] >= 1 for asked in plan.cases):
            return seed
    raise AssertionError


def _model_of(plan: Plan, seed: int) -> LoopLM:
    """Weights of at most 8 significant bits, so exact in every dtype, and short to write."""
    model = build_model(plan.config).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.6
            scale = next((scale for part, scale in plan.scales.items() if part in name), 2.0 if "head_norm" in name else 1.0)
            parameter.copy_((drawn * 64).round().clamp(-127, 127) / 64 * scale)
        if plan.tied:
            low, high, coordinate, size = plan.tied
            model.embedding.weight[[low, high]] = 0
            model.embedding.weight[[low, high], coordinate] = float(size)
    return model


@torch.no_grad()
def _case(model: LoopLM, asked: Asked) -> tuple[dict[str, Any], float]:
    """What a case must give, and the smallest margin of anything that is decided, 1 being what MARGINS asks for."""
    rows = [[SYMBOLS.index(symbol) for symbol in text] for text in asked.texts]
    width = max(map(len, rows))
    padding = [width - len(row) for row in rows]
    answers = [_answers(text, asked) for text in asked.texts]
    given = [_row(model, row, answer, asked) for row, answer in zip(rows, answers, strict=True)]
    case: dict[str, Any] = {
        "tokens": [[PAD] * n + row for n, row in zip(padding, rows, strict=True)],
        "real": [[False] * n + [True] * len(row) for n, row in zip(padding, rows, strict=True)],
        "answer": [[False] * n + answer for n, answer in zip(padding, answers, strict=True)],
        "halting": asked.halting,
        "max_new_tokens": asked.new,
        "stop_token": STOP,
    }
    for key in ("states", "logits", "loops_taken"):
        nothing: Any = 0 if key == "loops_taken" else []
        case[key] = [[nothing] * n + row[key] for n, (row, _) in zip(padding, given, strict=True)]
    for key in ("generated", "generated_loops_taken", "generated_states"):
        case[key] = [row[key] for row, _ in given]
    return case, min(margin for _, margin in given)


def _answers(text: str, asked: Asked) -> list[bool]:
    """Which tokens an answer token is read from (halting.roles)."""
    if asked.all_answer:
        return [True] * len(text)
    first = text.index("_") if "_" in text else text.index("=")
    return [t >= first for t in range(len(text))]


def _row(model: LoopLM, tokens: list[int], answer: list[bool], asked: Asked) -> tuple[dict[str, Any], float]:
    """What one row must give, alone and without padding, and its smallest margin."""
    halting, new = asked.rule, []
    if asked.new:
        assert answer == [t == len(tokens) - 1 for t in range(len(tokens))]
        settings: dict[str, Any] = {"halting": halting, "max_new_tokens": asked.new, "stop_token": STOP, "backend": "torch"}
        new = generate(model, torch.tensor([tokens]), **settings).tokens[0]
    whole, roles = torch.tensor([tokens + new[:-1]]), torch.tensor([answer + [True] * len(new[:-1])])
    thoughts = model.think(whole, halting, answer=roles, keep_every_loop=True)
    assert thoughts.h_per_loop is not None and thoughts.logits_per_loop is not None
    taken = thoughts.loops_taken[0].tolist()
    sources = range(len(tokens) - 1, len(tokens) - 1 + len(new))
    row = {
        "states": [_rounded(thoughts.h_per_loop[:s, 0, t]) for t, s in enumerate(taken[: len(tokens)])],
        "logits": _rounded(thoughts.logits[0, : len(tokens)]),
        "loops_taken": taken[: len(tokens)],
        "generated": new,
        "generated_loops_taken": [taken[t] for t in sources],
        "generated_states": _rounded(thoughts.h[0, sources]) if new else [],
    }
    assert new == [] or new == thoughts.logits[0, sources].argmax(-1).tolist()
    margins = []
    for t, s in enumerate(taken):
        h, logits = thoughts.h_per_loop[:s, 0, t], thoughts.logits_per_loop[:s, 0, t]
        margins += _margins(model, h, logits, halting.answer if roles[0, t] else halting.prompt)
        margins += [_gap(logits[-1:])] if new and t in sources else []
    return row, min(margins)


def _margins(model: LoopLM, h: Tensor, logits: Tensor, rule: HaltingRule) -> list[float]:
    """Of what the rule asks of one token, whose states and logits after each loop these are: [L, D] and [L, V]."""
    margins = []
    threshold, epsilon, unknown_id = (getattr(rule, name, None) for name in ("threshold", "epsilon", "unknown_id"))
    if isinstance(rule, TwoEqualArgmaxes | PrefixStability) or unknown_id is not None:
        margins.append(_gap(logits))
    if threshold is not None:
        gate = [model.halt_prob(h[l - 1][None, None], l) for l in range(1, len(h) + 1)] if isinstance(rule, Gate) else []
        probability = torch.cat([p.flatten() for p in gate if p is not None]) if gate else logits.softmax(1).amax(1)
        margins.append(float((probability - threshold).abs().min()) / MARGINS["threshold"])
    if epsilon is not None:
        before = torch.cat([torch.zeros_like(h[:1]), h[:-1]])
        change = (h - before).norm(dim=1) / h.norm(dim=1)
        margins.append(float((change / epsilon - 1).abs().min()) / MARGINS["epsilon"])
    return margins or [math.inf]


def _gap(logits: Tensor) -> float:
    """The smallest margin between the best id and the best that is not tied with it."""
    best = logits.amax(1, keepdim=True)
    return float((best - logits.masked_fill(logits == best, -math.inf)).amin()) / MARGINS["guess"]


def _rounded(values: Tensor) -> Any:
    return [_rounded(value) for value in values] if values.dim() else float(f"{values.item():.12g}")


def load(vector: dict[str, Any], dtype: torch.dtype) -> LoopLM:
    """A model of this package, with a vector's weights."""
    model = build_model(parse(ModelConfig, vector["config"], where=vector["name"])).to(dtype).eval()
    model.load_state_dict({key: torch.tensor(value, dtype=dtype) for key, value in vector["weights"].items()})
    return model


@torch.no_grad()
def run_package(vector: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """What this package gives for a vector, its rows together and its new tokens through a cache."""
    model, cases = load(vector, dtype), []
    for case in vector["cases"]:
        halting = parse_halting(case["halting"], where=vector["name"])
        real, answer, tokens = torch.tensor(case["real"]), torch.tensor(case["answer"]), torch.tensor(case["tokens"])
        cache = KVCache(halting.max_loops, model.config.layers)
        read = model.think(tokens, halting, real=real, answer=answer, cache=cache, keep_every_loop=True)
        assert read.h_per_loop is not None
        taken, thoughts = read.loops_taken.tolist(), read
        given: dict[str, Any] = {
            "states": [[read.h_per_loop[:s, b, t].tolist() for t, s in enumerate(row)] for b, row in enumerate(taken)],
            "loops_taken": taken,
            "logits": [[read.logits[b, t].tolist() if s else [] for t, s in enumerate(row)] for b, row in enumerate(taken)],
            **{key: [[] for _ in taken] for key in ("generated", "generated_loops_taken", "generated_states")},
        }
        goes_on = [case["max_new_tokens"] > 0 for _ in taken]
        while any(goes_on):
            guess = thoughts.logits[:, -1].argmax(-1)
            for b in (b for b, on in enumerate(goes_on) if on):
                given["generated"][b].append(int(guess[b]))
                given["generated_loops_taken"][b].append(int(thoughts.loops_taken[b, -1]))
                given["generated_states"][b].append(thoughts.h[b, -1].tolist())
                goes_on[b] = int(guess[b]) != case["stop_token"] and len(given["generated"][b]) < case["max_new_tokens"]
            if any(goes_on):
                thoughts = model.think(guess[:, None], halting, real=torch.tensor(goes_on)[:, None], cache=cache)
        cases.append(given)
    return {"schema": SCHEMA, "name": vector["name"], "dtype": str(dtype).removeprefix("torch."), "cases": cases}


def as_bytes(vector: dict[str, Any]) -> bytes:
    """JSON with a case a line, so that a change shows as a change."""
    text = json.dumps(vector, separators=(",", ":"))
    for start, cut in (('"weights":{', 11), ('"cases":[', 9), ('},{"tokens"', 2)):
        text = text.replace(start, f"{start[:cut]}\n{start[cut:]}")
    return f"{text}\n".encode()


def write_vectors(folder: Path) -> list[Path]:
    """Make every vector anew; gives the files."""
    files = [folder / f"{name}.json" for name in PLANS]
    refuse_unwritable(files[0])
    for file in files:
        write_file(file, as_bytes(make_vector(file.stem)))
    return files
