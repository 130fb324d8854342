"""Conformance vectors: what a port in another framework must reproduce, and whether it does.

tests/vectors/README.md says how to read a vector and what to write; schema.json is its layout. The expected numbers are
computed in float64 from weights that float32 holds exactly, and no argmax is near a tie, so both dtypes must agree on
every decision. bfloat16, with its 8 bits, may rightly decide otherwise: a port shows that it conforms in float32.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.files import write_file
from looplm.loop import halting as halting_rules
from looplm.loop.halting import ByRole, parse_halting
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.resources import resource
from looplm.settings import as_table, parse
from looplm.think.generate import generate

SCHEMA = 1
TOLERANCES = {"float64": 1e-8, "float32": 1e-4}
"""Largest difference of a state or logit, by the dtype that a port computed in; the README gives the reasons."""
SMALLEST_MARGIN = 0.05
"""Least distance, in nats, between the two most likely tokens anywhere in the vectors."""
STOP = 13

_SHARED: dict[str, Any] = {"vocab_size": 15, "width": 8, "heads": 2, "mlp_width": 12}
_PLACES: dict[str, Any] = {"positions": "place", "place_ids": tuple(range(10)), "place_window": 1}
_CONFIGS: dict[str, ModelConfig] = {
    "first-light": ModelConfig(**_SHARED, **_PLACES, loop_signal="sinusoidal", loop_signal_loops=4),
    "rope-two-layers": ModelConfig(
        **_SHARED, layers=2, mlp="swiglu", positions="rope", injection="first", loop_signal="learned", loop_signal_loops=2
    ),
    "learned-layer-norm": ModelConfig(**_SHARED, norm="layer", positions="learned", max_positions=16),
    "static": ModelConfig(**_SHARED, body="static", layers=3, positions="none", state_norm=False),
}
_SEEDS = {"first-light": 254, "rope-two-layers": 52, "learned-layer-norm": 348, "static": 11}
"""Of the weights: the first with a wide enough margin and, where a model loops, tokens that halt at three depths."""
_TEXTS = ((12, 8, 7, 9, 10, 7, 5, 4, 11), (12, 3, 10, 0, 0, 4, 11, 7), (5,))
_RULES = (ByRole(Fixed(3), Fixed(3)), ByRole(TwoEqualArgmaxes(6), Fixed(6)))
_NEW_TOKENS = 4


def make_vector(name: str) -> dict[str, Any]:
    """One vector: configuration, weights, and what each case must give; the same bytes each time on one machine."""
    config = _CONFIGS[name]
    model = build_model(config).double().eval()
    _set_weights(model, _SEEDS[name])
    cases = [_case(model, tokens, rule) for tokens in _TEXTS for rule in _rules(config)]
    margin = min(margin for _, margin in cases)
    assert margin >= SMALLEST_MARGIN, f"{name}: two tokens are within {margin} nats; take another seed"
    weights = {key: value.tolist() for key, value in model.state_dict().items()}
    made = [case for case, _ in cases]
    return {"schema": SCHEMA, "name": name, "config": _without_gate(config), "weights": weights, "cases": made}


def run_port(vector: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """What this package itself gives for a vector, in the layout that a port writes."""
    model = build_model(parse(ModelConfig, vector["config"], where=vector["name"])).eval()
    model.load_state_dict({key: torch.tensor(value) for key, value in vector["weights"].items()})
    model = model.to(dtype)
    cases = []
    for case in vector["cases"]:
        made, _ = _case(model, case["tokens"], parse_halting(case["halting"], where=vector["name"]))
        cases.append({key: made[key] for key in ("states", "logits", "loops_taken", "generated")})
    return {"schema": SCHEMA, "name": vector["name"], "dtype": str(dtype).removeprefix("torch."), "cases": cases}


@dataclass(frozen=True)
class Difference:
    """The first place where a port departs from a vector."""

    where: str
    """Such as first-light, case 2, states, [loop 1, token 3, coordinate 0]."""
    expected: Any
    found: Any


def conform(path: Path) -> dict[str, Difference | None]:
    """Check a port's output file, or every .json file of a folder; gives each vector's first difference, or None.

    Raises:
        InputError: if a file is no output of a port, or names no vector, or a vector has none.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no .json files; write one per vector, as tests/vectors/README.md says.")
    found = {}
    for file in files:
        output, vectors = _read(file), vector_names()
        if output.get("name") not in vectors:
            raise InputError(f"{file}: `name` is {output.get('name')!r}; the vectors are: {', '.join(vectors)}.")
        found[output["name"]] = next(_differences(read_vector(output["name"]), output, file), None)
    return found


def vector_names() -> list[str]:
    """Names of the committed vectors."""
    return sorted(path.stem for path in resource("tests/vectors").glob("*.json") if path.stem != "schema")


def read_vector(name: str) -> dict[str, Any]:
    """A committed vector."""
    return _read(resource("tests/vectors") / f"{name}.json")


def _rules(config: ModelConfig) -> Sequence[ByRole]:
    return (ByRole(Fixed(1), Fixed(1)),) if config.body == "static" else _RULES


def _set_weights(model: LoopLM, seed: int) -> None:
    """Multiples of 1/64 below 2 in size: 8 significant bits, exact in every dtype, and short to write."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.6
            parameter.copy_((drawn * 64).round().clamp(-127, 127) / 64)


def _without_gate(config: ModelConfig) -> dict[str, Any]:
    """The settings that a port has to know; the vectors have no gate, and say nothing of it."""
    assert not config.gate
    return {name: value for name, value in as_table(config).items() if name != "gate"}


def _case(model: LoopLM, tokens: Sequence[int], rule: ByRole) -> tuple[dict[str, Any], float]:
    """What a text must give under a rule, and the smallest margin of any argmax that decides something."""
    ids = torch.tensor([list(tokens)])
    thoughts = model.think(ids, rule, keep_every_loop=True)
    assert thoughts.logits_per_loop is not None and thoughts.h_per_loop is not None
    made = generate(model, ids, halting=rule, max_new_tokens=_NEW_TOKENS, stop_token=STOP)
    best = torch.cat([thoughts.logits_per_loop.double().flatten(0, 2), _logits_of_generation(model, ids, made, rule)])
    first, second = best.topk(2).values.unbind(-1)
    case = {
        "tokens": list(tokens),
        "halting": halting_rules.as_table(rule),
        "states": _rounded(thoughts.h_per_loop[:, 0]),
        "logits": _rounded(thoughts.logits_per_loop[:, 0]),
        "loops_taken": thoughts.loops_taken[0].tolist(),
        "generated": {"tokens": made.tokens[0], "loops_taken": made.loops_taken[0]},
    }
    return case, (first - second).min().item()


def _logits_of_generation(model: LoopLM, prompt: Tensor, made: Any, rule: ByRole) -> Tensor:
    whole = torch.cat((prompt, torch.tensor([made.tokens[0][:-1]], dtype=torch.int64)), 1)
    answer = torch.arange(whole.shape[1])[None] >= prompt.shape[1] - 1
    thoughts = model.think(whole, rule, answer=answer, keep_every_loop=True)
    assert thoughts.logits_per_loop is not None
    return thoughts.logits_per_loop[:, :, prompt.shape[1] - 1 :].double().flatten(0, 2)


def _rounded(values: Tensor) -> Any:
    return [_rounded(value) for value in values] if values.dim() else float(f"{values.item():.12g}")


def _differences(vector: dict[str, Any], output: dict[str, Any], file: Path) -> Iterator[Difference]:
    if output.get("dtype") not in TOLERANCES:
        raise InputError(f"{file}: `dtype` is {output.get('dtype')!r}; it may be: {', '.join(TOLERANCES)}.")
    tolerance, name = TOLERANCES[output["dtype"]], vector["name"]
    cases = output.get("cases")
    if not isinstance(cases, list) or len(cases) != len(vector["cases"]):
        raise InputError(f"{file}: `cases` must be a list of {len(vector['cases'])}, in the order of the vector's.")
    for number, (expected, found) in enumerate(zip(vector["cases"], cases, strict=True), 1):
        for key in ("loops_taken", "states", "logits", "generated"):
            if not isinstance(found, dict) or key not in found:
                raise InputError(f"{file}: case {number} lacks `{key}`.")
            allowed = tolerance if key in ("states", "logits") else 0.0
            yield from _compare(expected[key], found[key], allowed, f"{name}, case {number}, {key}")


def _compare(expected: Any, found: Any, tolerance: float, where: str) -> Iterator[Difference]:
    if isinstance(expected, dict):
        for key, value in expected.items():
            yield from _compare(value, found.get(key) if isinstance(found, dict) else None, tolerance, f"{where}.{key}")
    elif isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            size = f"{len(found)} entries" if isinstance(found, list) else repr(found)
            yield Difference(where, f"{len(expected)} entries", size)
            return
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _compare(one, other, tolerance, f"{where}[{index}]")
    elif isinstance(found, bool) or not isinstance(found, int | float) or not abs(found - expected) <= tolerance:
        yield Difference(where, expected, found)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(f"{path} is no readable JSON file; write one per vector, as tests/vectors/README.md says.") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of schema {SCHEMA}; see tests/vectors/README.md.")
    return document


def _as_bytes(vector: dict[str, Any]) -> bytes:
    """JSON with one weight or case entry a line, so that a change shows as a change."""
    lines = (
        json.dumps(vector, separators=(",", ":")).replace('"cases":[', '"cases":[\n').replace('},{"tokens"', '},\n{"tokens"')
    )
    return (lines.replace('"weights":{', '"weights":{\n') + "\n").encode()


def write_vectors(folder: Path) -> None:
    """Make every vector anew."""
    for name in _CONFIGS:
        write_file(folder / f"{name}.json", _as_bytes(make_vector(name)))


if __name__ == "__main__":
    write_vectors(Path(sys.argv[1]))
