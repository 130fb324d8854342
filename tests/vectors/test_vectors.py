"""The vectors are what the package gives and what the spec says, and `looplm conform` finds what departs from them."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from oracle_model import OracleModel, Token

from looplm.cli import main
from looplm.errors import InputError
from looplm.interop.make_vectors import PLANS, load, make_vector, run_package
from looplm.interop.vectors import TOLERANCES, judge, read_vector, vector_names
from looplm.loop.halting import RULES, name_of, parse_halting
from looplm.think.generate import generate

HERE = Path(__file__).parent
PORT = HERE.parents[1] / "examples" / "numpy_port.py"
SCHEMA = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))
NAMES = vector_names()
RESULTS = ("states", "logits", "generated_states")


def test_the_vectors_are_those_that_are_made_and_they_are_small() -> None:
    assert sorted(PLANS) == NAMES
    assert sum(path.stat().st_size for path in HERE.glob("*.json")) <= 600_000


@pytest.mark.parametrize("name", NAMES)
def test_making_a_vector_anew_gives_the_same(name: str) -> None:
    committed, anew = read_vector(name), make_vector(name)
    for old, new in zip(committed["cases"], anew["cases"], strict=True):
        given = {key: new[key] for key in (*RESULTS, "loops_taken", "generated", "generated_loops_taken")}
        output = {"schema": 2, "name": name, "dtype": "float64", "cases": [given]}
        assert judge(committed | {"cases": [old]}, output).first is None, "run `make vectors`"
        for key in RESULTS:
            old.pop(key), new.pop(key)
    assert committed == anew, "run `make vectors`"


@pytest.mark.parametrize("name", NAMES)
def test_vectors_and_outputs_follow_the_schema(name: str) -> None:
    vector = read_vector(name)
    jsonschema.validate(vector, SCHEMA)
    jsonschema.validate(run_package(vector, torch.float32), SCHEMA)


def test_the_vectors_ask_for_every_choice() -> None:
    configs = [PLANS[name].config for name in NAMES]
    rules = [asked.rule for plan in PLANS.values() for asked in plan.cases]
    own_prompts = [asked.rule.prompt for plan in PLANS.values() for asked in plan.cases if "prompt" in asked.halting]
    for roles in ([rule.answer for rule in rules], own_prompts):
        assert {name_of(rule) for rule in roles} == set(RULES.names())
    assert len(own_prompts) < len(rules), "some prompt has the rule of a table that names none"
    assert {config.positions for config in configs} == {"none", "rope", "learned", "place"}
    assert {config.loop_signal for config in configs} == {"none", "sinusoidal", "learned"}
    for name in ("body", "mlp", "norm", "injection", "state_norm", "gate", "place_strict"):
        assert len({getattr(config, name) for config in configs}) == 2, f"one choice of `{name}` is never asked for"
    assert {(config.place_window or 0) > config.place_reach for config in configs if config.place_window} == {True, False}
    assert any(1 < config.heads // (config.kv_heads or config.heads) < config.heads for config in configs)
    for name, off in (("unknown_id", 0), ("in_order", 0), ("min_loops", 1)):
        assert any((getattr(rule.answer, name, None) or 0) > off for rule in rules)
    assert any(rule.max_loops > PLANS["first-light"].config.loop_signal_loops for rule in rules)


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_is_what_the_spec_says(name: str) -> None:
    vector = read_vector(name)
    oracle = OracleModel(load(vector, torch.float64))

    def near(found: Any, expected: torch.Tensor) -> None:
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, atol=1e-9, rtol=1e-9)

    for case in vector["cases"]:
        rule = parse_halting(case["halting"], where=name)
        for b, new in enumerate(case["generated"]):
            columns = [column for column, real in enumerate(case["real"][b]) if real]
            text = [case["tokens"][b][column] for column in columns] + new[:-1]
            answer = [case["answer"][b][column] for column in columns] + [True] * len(new[:-1])
            tokens = oracle.read(text, rule, answer)
            for column, token in zip(columns, tokens, strict=False):
                assert token.loops_taken == case["loops_taken"][b][column]
                near(case["states"][b][column], torch.stack(token.states))
                near(case["logits"][b][column], token.logits[-1])
            sources: list[Token] = tokens[len(columns) - 1 :] if new else []
            assert [token.guesses[-1] for token in sources] == new
            assert [token.loops_taken for token in sources] == case["generated_loops_taken"][b]
            for state, token in zip(case["generated_states"][b], sources, strict=True):
                near(state, token.states[-1])


@pytest.mark.spec("architecture.greedy", "kernels.backends", "kernels.reference")
@pytest.mark.parametrize("name", NAMES)
def test_generating_gives_what_the_vector_says(name: str) -> None:
    vector = read_vector(name)
    model, ran = load(vector, torch.float64), set()
    for case in (case for case in vector["cases"] if case["max_new_tokens"]):
        rules = parse_halting(case["halting"], where=name)
        for backend in ("torch", "reference"):
            with suppress(InputError):  # the kernels do not know every model and rule
                made = generate(
                    model,
                    torch.tensor(case["tokens"]),
                    halting=rules,
                    max_new_tokens=case["max_new_tokens"],
                    stop_token=case["stop_token"],
                    real=torch.tensor(case["real"]),
                    backend=backend,
                )
                ran.add(made.backend)
                assert (made.tokens, made.loops_taken) == (case["generated"], case["generated_loops_taken"])
    assert name == "parallel" or "torch" in ran
    assert name not in ("first-light", "small-layer-norm", "ties") or "reference" in ran


@pytest.mark.parametrize("dtype", sorted(TOLERANCES))
def test_the_package_conforms_in_every_dtype(dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.json").write_text(json.dumps(run_package(read_vector(name), getattr(torch, dtype))))
    assert main(["conform", str(tmp_path)]) == 0
    cases = {name: len(PLANS[name].cases) for name in NAMES}
    assert capsys.readouterr().out == "".join(f"{name}: conforms ({cases[name]} cases, {dtype})\n" for name in NAMES)


def test_the_numpy_port_conforms_without_torch_and_without_looplm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PORT.read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name for node in imports for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    assert names == {"json", "sys", "math", "pathlib", "numpy"}
    assert len(text.splitlines()) <= 150
    subprocess.run([sys.executable, PORT, HERE, tmp_path / "out"], check=True, timeout=120)
    assert main(["conform", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("conforms") == len(NAMES)


def shift_states(case: dict[str, Any]) -> None:
    """In loop 2 of a token, in loop 1 of a later one; and an earlier one takes a loop more."""
    case["states"][0][4][1][5] += 1e-3
    case["states"][0][6][0][2] += 0.25
    one_loop_more(case)


def one_loop_more(case: dict[str, Any]) -> None:
    case["states"][0][2].append(case["states"][0][2][-1])
    case["loops_taken"][0][2] += 1


def not_a_number(case: dict[str, Any]) -> None:
    case["logits"][0][3][0] = float("nan")


def other_text(case: dict[str, Any]) -> None:
    case["generated"][1][0] = (case["generated"][1][0] + 1) % 15


def shorter_text(case: dict[str, Any]) -> None:
    for key in ("generated", "generated_loops_taken", "generated_states"):
        case[key][0].pop()


SPOILED: dict[str, tuple[int, Callable[[dict[str, Any]], None], list[str]]] = {
    "a state, before what was decided later": (
        1,
        shift_states,
        [
            "states[0][6][0][2]: expected ",
            "float32 allows 0.0001",
            "row 0, token 6: the first loop at which a state departs is 1 of",
        ],
    ),
    "loops": (
        1,
        one_loop_more,
        [
            "loops_taken[0][2]: expected ",
            "1 apart; it must be equal",
            "all states agree up to loop ",
            "see halting.two-equal-argmaxes",
        ],
    ),
    "logits": (0, not_a_number, ["logits[0][3][0]: expected ", "nan apart", "see architecture.tied-head"]),
    "a token": (2, other_text, ["generated[1][0]: expected ", "read from the prompt's last token", "architecture.guess"]),
    "fewer tokens": (2, shorter_text, ["the length of generated[0]: expected 4, found 3", "see architecture.greedy"]),
}


@pytest.mark.parametrize("name", SPOILED)
def test_the_first_difference_is_explained(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number, spoil, said = SPOILED[name]
    output = run_package(read_vector("first-light"), torch.float32)
    spoil(output["cases"][number])
    (tmp_path / "mine.json").write_text(json.dumps(output))
    assert main(["conform", str(tmp_path / "mine.json")]) == 1
    told = capsys.readouterr().out
    assert told.startswith(f"first-light: 1 of {len(output['cases'])} cases differ ({number}); in case {number}, first:\n")
    for words in [*said, "Cases, rows, tokens and indices count from 0, loops from 1."]:
        assert words in told


def extra_key(output: dict[str, Any]) -> None:
    output["cases"][0]["guesses"] = []


def a_fraction_of_a_loop(output: dict[str, Any]) -> None:
    output["cases"][0]["loops_taken"][0][0] = 1.0


def a_yes(output: dict[str, Any]) -> None:
    output["cases"][0]["logits"][0][0][0] = True


def one_row_less(output: dict[str, Any]) -> None:
    output["cases"][1]["states"].pop()


def repeated_states(output: dict[str, Any]) -> None:
    output["cases"][0]["states"][0][1] *= 2


def dangling_state(output: dict[str, Any]) -> None:
    output["cases"][1]["generated_states"][0].pop()


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda output: output.pop(key)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (extra_key, "case 0 has an unknown key `guesses`; its keys are: states, logits"),
        (a_fraction_of_a_loop, "case 0, loops_taken[0][0] is 1.0, and must be an integer"),
        (a_yes, "case 0, logits[0][0][0] is True, and must be a number"),
        (one_row_less, "case 1, states must be a list, along rows of 2, and has 1"),
        (repeated_states, "row 0, token 1 has 1 `loops_taken` and 2 `states`; write a state for each loop that a token took"),
        (dangling_state, "case 1: row 0 must have a state and a number of loops for each token that it generated"),
        (without("dtype"), "lacks `dtype`"),
        (lambda output: output.update(note="x"), "has an unknown key `note`"),
        (lambda output: output.update(dtype="int8"), "`dtype` is 'int8'; it may be: float64, float32"),
        (lambda output: output.update(name="x"), "`name` is 'x'; the vectors are: first-light, gate"),
        (lambda output: output.update(schema=1), "not of schema 2"),
        (lambda output: output["cases"].pop(), "`cases` must be a list of 2"),
        (lambda output: output["cases"][0].pop("logits"), "case 0 lacks `logits`"),
    ],
)
def test_what_breaks_the_schema_is_refused(
    spoil: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = run_package(read_vector("static"), torch.float32)
    spoil(output)
    (tmp_path / "mine.json").write_text(json.dumps(output))
    assert main(["conform", str(tmp_path / "mine.json")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    if spoil in (extra_key, a_yes):  # JSON Schema knows keys and kinds, not sizes that follow from the vector
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(output, SCHEMA)


def test_the_vectors_themselves_are_no_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (HERE, HERE / "static.json"):
        assert main(["conform", str(path)]) == 2
        told = capsys.readouterr().err
        assert "is a vector itself, not what a port makes of it" in told
        assert told.count("\n") == 1


def test_write_makes_the_vectors_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looplm.interop.make_vectors.PLANS", {"static": PLANS["static"]})
    assert main(["conform", "--write", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'static.json'}\n"
    jsonschema.validate(json.loads((tmp_path / "new" / "static.json").read_text()), SCHEMA)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["static.json"]
    for arguments in ([], [str(tmp_path), "--write", str(tmp_path)]):
        assert main(["conform", *arguments]) == 2
        assert "or `--write FOLDER` to make the vectors anew" in capsys.readouterr().err


def test_a_vector_without_output_is_named_and_one_with_two_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conform", str(tmp_path)]) == 2
    assert "holds no .json files" in capsys.readouterr().err
    (tmp_path / "static.json").write_text(json.dumps(run_package(read_vector("static"), torch.float64)))
    assert main(["conform", str(tmp_path)]) == 1
    assert "first-light: no output" in capsys.readouterr().out
    (tmp_path / "again.json").write_text((tmp_path / "static.json").read_text())
    assert main(["conform", str(tmp_path)]) == 2
    assert "another file of this folder is an output for 'static' too" in capsys.readouterr().err
    (tmp_path / "again.json").write_text("{")
    assert main(["conform", str(tmp_path / "again.json")]) == 2
    assert "no readable JSON" in capsys.readouterr().err
