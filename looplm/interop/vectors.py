"""Conformance: whether a port to another framework gives what the vectors say, and where it first departs.

tests/vectors/README.md says how to read a vector and what to write; schema.json is its layout, which is enforced here without
a library. bfloat16, with its 8 bits, may rightly decide otherwise: a port shows that it conforms in float32.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looplm.errors import InputError
from looplm.resources import resource

SCHEMA = 2
TOLERANCES = {"float64": 1e-8, "float32": 1e-4}
"""Largest difference of a state or logit, by the dtype that a port computed in; the README gives the reasons."""
_OUTPUT = ("schema", "name", "dtype", "cases")
_AXES = {
    "states": ("rows", "tokens", "loops", "width"),
    "logits": ("rows", "tokens", "vocabulary"),
    "loops_taken": ("rows", "tokens"),
    "generated": ("rows", "new tokens"),
    "generated_loops_taken": ("rows", "new tokens"),
    "generated_states": ("rows", "new tokens", "width"),
}
"""The parts of a case, and their axes; loops and new tokens are as many as a port makes them."""
_README = "as tests/vectors/README.md says"


@dataclass(frozen=True)
class Difference:
    """The first place where a port departs from a vector; indices count from 0, loops from 1."""

    case: int
    place: str
    """As one would index the case: `states[0][3][1][5]`."""
    words: str
    """The same in words."""
    expected: Any
    found: Any
    tolerance: float
    clauses: tuple[str, ...]
    """Ids of the clauses to look at: those whose breach shows here first."""

    @property
    def apart(self) -> float:
        """Distance of the two numbers."""
        return abs(self.found - self.expected)


@dataclass(frozen=True)
class Verdict:
    """What a port made of a vector."""

    dtype: str
    cases: int
    differing: tuple[int, ...]
    """Cases that differ."""
    first: Difference | None
    """None: it conforms."""


def conform(path: Path) -> dict[str, Verdict]:
    """Check a port's output file, or every .json file of a folder; gives each vector's verdict.

    Raises:
        InputError: if a file is no output of a port or breaks the schema, or names no vector, or a vector has none.
    """
    files = sorted(path.glob("*.json"), key=lambda file: file.stem) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no .json files; write one per vector, {_README}.")
    found: dict[str, Verdict] = {}
    for file in files:
        output, names = _read(file), vector_names()
        if "weights" in output:
            raise InputError(
                f"{file} is a vector itself, not what a port makes of it: let your port read the vectors and write its outputs "
                f"to another folder, {_README}, and give that folder."
            )
        _check_keys(output, _OUTPUT, f"{file}:")
        if output["name"] not in names:
            raise InputError(f"{file}: `name` is {output['name']!r}; the vectors are: {', '.join(names)}.")
        if output["name"] in found:
            raise InputError(f"{file}: another file of this folder is an output for {output['name']!r} too; keep one.")
        found[output["name"]] = judge(read_vector(output["name"]), output, str(file))
    return found


def judge(vector: dict[str, Any], output: dict[str, Any], file: str = "the output") -> Verdict:
    """Compare an output with its vector, as the two stand in their files.

    Raises:
        InputError: if the output breaks the schema.
    """
    if output["dtype"] not in TOLERANCES:
        raise InputError(f"{file}: `dtype` is {output['dtype']!r}; it may be: {', '.join(TOLERANCES)}.")
    cases = output["cases"]
    if not isinstance(cases, list) or len(cases) != len(vector["cases"]):
        raise InputError(f"{file}: `cases` must be a list of {len(vector['cases'])}, in the order of the vector's.")
    firsts: list[Difference] = []
    for number, (expected, found) in enumerate(zip(vector["cases"], cases, strict=True)):
        _check_case(vector["config"], expected, found, f"{file}: case {number}")
        if first := next(_differences(vector["config"], expected, found, number, TOLERANCES[output["dtype"]]), None):
            firsts.append(first)
    return Verdict(output["dtype"], len(cases), tuple(first.case for first in firsts), firsts[0] if firsts else None)


def vector_names() -> list[str]:
    """Names of the committed vectors."""
    return sorted(path.stem for path in resource("tests/vectors").glob("*.json") if path.stem != "schema")


def read_vector(name: str) -> dict[str, Any]:
    """A committed vector."""
    return _read(resource("tests/vectors") / f"{name}.json")


def _differences(
    config: dict[str, Any], expected: dict[str, Any], found: dict[str, Any], case: int, tolerance: float
) -> Iterator[Difference]:
    """The differences of a case, in the order in which they came about: states by loop, decisions, logits, new tokens."""

    def compare(key: str, place: tuple[int, ...], words: str, clauses: tuple[str, ...]) -> Iterator[Difference]:
        one, other = expected[key], found[key]
        for index in place:
            one, other = one[index], other[index]
        numbers = isinstance(one, list)
        for i, (a, b) in enumerate(zip(one, other, strict=True) if numbers else [(one, other)]):
            allowed = tolerance if numbers else 0.0
            if not abs(b - a) <= allowed:
                at = "".join(f"[{index}]" for index in (*place, *([i] if numbers else [])))
                yield Difference(case, key + at, words, a, b, allowed, clauses)

    taken = expected["loops_taken"]
    tokens = [(b, t) for b, row in enumerate(taken) for t in range(len(row))]
    most = max(map(max, taken))
    for l in range(1, most + 1):
        for b, t in tokens:
            if l <= min(taken[b][t], found["loops_taken"][b][t]):
                words = f"row {b}, token {t}: the first loop at which a state departs is {l} of {most}"
                yield from compare("states", (b, t, l - 1), words, _of_state(config, expected, b, t, l))
    for b, t in tokens:
        until = min(taken[b][t], found["loops_taken"][b][t])
        words = f"row {b}, token {t}: all states agree up to loop {until}, after which only one of the two went on"
        yield from compare("loops_taken", (b, t), words, _of_decision(expected, expected["answer"][b][t]))
    for b, t in tokens:
        words = f"row {b}, token {t}: its state agrees, what is read from it after its last loop, {taken[b][t]}, does not"
        yield from compare("logits", (b, t), words, ("architecture.tied-head",))
    for b, made in enumerate(expected["generated"]):
        for i in range(min(len(made), len(found["generated"][b]))):
            whence = f"row {b}, new token {i}, read from " + ("the prompt's last token" if i == 0 else f"new token {i - 1}")
            words = f"{whence}: this state departs first, at one of its loops"
            yield from compare("generated_states", (b, i), words, ("architecture.cache", "halting.kv-publish", "halting.roles"))
            words = f"{whence}: the state agrees, its number of loops does not"
            yield from compare("generated_loops_taken", (b, i), words, _of_decision(expected, True))
            words = f"{whence}: state and loops agree, the token does not"
            yield from compare("generated", (b, i), words, ("architecture.guess", "architecture.greedy"))
        if len(made) != len(found["generated"][b]):
            place, lengths = f"the length of generated[{b}]", (len(made), len(found["generated"][b]))
            yield Difference(case, place, f"row {b}: its tokens agree", *lengths, 0.0, ("architecture.greedy",))


def _of_state(config: dict[str, Any], case: dict[str, Any], b: int, t: int, l: int) -> tuple[str, ...]:
    """The clauses that a state which is the first to depart may break."""
    before = [s for s in case["loops_taken"][b][:t] if s > 0]
    signal = {"none": (), "sinusoidal": ("architecture.loop-signal",), "learned": ("architecture.learned-loop-signal",)}
    if l == 1 and not before:
        own = ("embedding", "layer", f"{config['norm']}-norm", config["mlp"])
        return (*(f"architecture.{name}" for name in own), *signal[config["loop_signal"]])
    if l == 1:
        schemes = {"place": ("place", "place-bias", "place-window"), "learned": ("learned-positions",)}
        scheme = ("rope",) if config["positions"] == "rope" else schemes.get(config["positions"], ())
        return tuple(f"architecture.{name}" for name in ("attention", "grouped-queries", "seen", "positions", *scheme))
    beyond = ("architecture.loop-signal",) if config["loop_signal"] != "none" and l > config["loop_signal_loops"] else ()
    published = ("halting.kv-publish", "halting.kv-pass")[: config["layers"]] if any(s < l for s in before) else ()
    looped = ("architecture.loop", f"injection.{config['injection']}-loop", *signal[config["loop_signal"]])
    return (*published, *beyond) or looped


def _of_decision(case: dict[str, Any], answer: bool) -> tuple[str, ...]:
    """The clauses that say when a token of this role halts."""
    halting = case["halting"]
    rule = halting if answer else halting.get("prompt", {"rule": "fixed"})
    more = [name for name, given in (("not-known-yet", "unknown_id" in rule), ("in-order", rule.get("in_order"))) if given]
    more += ["gate-probability"] if rule["rule"] == "gate" else []
    return tuple(f"halting.{name}" for name in (rule["rule"], *more, "bounds", "roles"))


def _check_case(config: dict[str, Any], expected: dict[str, Any], found: Any, where: str) -> None:
    """Enforce the schema on a case: its keys, its axes, and what its numbers are."""
    _check_keys(found, tuple(_AXES), where)
    sizes = {"rows": len(expected["tokens"]), "tokens": len(expected["tokens"][0])}
    sizes |= {"width": config["width"], "vocabulary": config["vocab_size"]}
    for key, axes in _AXES.items():
        _check_numbers(found[key], axes, sizes, key not in ("states", "logits", "generated_states"), f"{where}, {key}")
    for b, row in enumerate(found["loops_taken"]):
        for t, loops in enumerate(row):
            if len(found["states"][b][t]) != loops or bool(found["logits"][b][t]) != (loops > 0):
                raise InputError(
                    f"{where}: row {b}, token {t} has {loops} `loops_taken` and {len(found['states'][b][t])} `states`; write a "
                    "state for each loop that a token took and the logits of the last, and for padding 0 loops and empty lists."
                )
        if len({len(found[key][b]) for key in ("generated", "generated_loops_taken", "generated_states")}) > 1:
            raise InputError(f"{where}: row {b} must have a state and a number of loops for each token that it generated.")


def _check_keys(found: Any, keys: tuple[str, ...], where: str) -> None:
    if not isinstance(found, dict):
        raise InputError(f"{where} must be an object with the keys {', '.join(keys)}.")
    for key in keys:
        if key not in found:
            raise InputError(f"{where} lacks `{key}`.")
    if extra := sorted(set(found) - set(keys)):
        raise InputError(f"{where} has an unknown key `{extra[0]}`; its keys are: {', '.join(keys)}.")


def _check_numbers(found: Any, axes: tuple[str, ...], sizes: dict[str, int], whole: bool, where: str) -> None:
    """Nested lists of numbers, as long as they must be along every axis whose length is no result."""
    if not axes:
        right = isinstance(found, int) if whole else isinstance(found, int | float)
        if not right or isinstance(found, bool):
            raise InputError(f"{where} is {found!r}, and must be {'an integer' if whole else 'a number'}.")
        return
    size = sizes.get(axes[0])
    if not isinstance(found, list) or (size not in (None, len(found)) and (axes[0] != "vocabulary" or found)):
        given = f"has {len(found)}" if isinstance(found, list) else f"is {found!r}"
        raise InputError(f"{where} must be a list, along {axes[0]} of {'any number' if size is None else size}, and {given}.")
    for index, entry in enumerate(found):
        _check_numbers(entry, axes[1:], sizes, whole, f"{where}[{index}]")


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(f"{path} is no readable JSON file; write one per vector, {_README}.") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of schema {SCHEMA}; write it {_README}.")
    return document
