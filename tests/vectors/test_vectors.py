"""The vectors are what the package gives and what the spec says, and `looplm conform` finds what departs from them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from oracle_model import OracleModel

from looplm.cli import main
from looplm.config import ModelConfig
from looplm.interop.vectors import TOLERANCES, _as_bytes, conform, make_vector, read_vector, run_port, vector_names
from looplm.loop.halting import parse_halting
from looplm.models import build_model
from looplm.settings import parse

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))
NAMES = vector_names()


@pytest.mark.parametrize("name", NAMES)
def test_making_a_vector_anew_gives_the_same_bytes(name: str) -> None:
    assert (HERE / f"{name}.json").read_bytes() == _as_bytes(make_vector(name)), "run `make vectors`"


@pytest.mark.parametrize("name", NAMES)
def test_vectors_and_outputs_follow_the_schema(name: str) -> None:
    vector = read_vector(name)
    jsonschema.validate(vector, SCHEMA)
    jsonschema.validate(run_port(vector, torch.float32), SCHEMA)


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_is_what_the_spec_says(name: str) -> None:
    vector = read_vector(name)
    model = build_model(parse(ModelConfig, vector["config"], where=name)).double()
    model.load_state_dict({key: torch.tensor(value, dtype=torch.float64) for key, value in vector["weights"].items()})
    for case in vector["cases"]:
        rule = parse_halting(case["halting"], where=name)
        tokens = OracleModel(model).read(case["tokens"], rule)
        assert [token.loops_taken for token in tokens] == case["loops_taken"]
        for t, token in enumerate(tokens):
            for l, states in enumerate(case["states"]):
                expected = token.states[min(l, token.loops_taken - 1)]
                torch.testing.assert_close(torch.tensor(states[t], dtype=torch.float64), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", sorted(TOLERANCES))
def test_the_package_conforms_in_every_dtype(dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.json").write_text(json.dumps(run_port(read_vector(name), getattr(torch, dtype))))
    assert main(["conform", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "".join(f"{name}: conforms\n" for name in NAMES)


def shift_state(output: dict[str, Any]) -> None:
    output["cases"][1]["states"][0][3][0] += 1e-3


def one_loop_more(output: dict[str, Any]) -> None:
    output["cases"][0]["loops_taken"][2] += 1


def cut_logits(output: dict[str, Any]) -> None:
    output["cases"][0]["logits"].pop()


def not_a_number(output: dict[str, Any]) -> None:
    output["cases"][0]["logits"][0][0][0] = float("nan")


def other_text(output: dict[str, Any]) -> None:
    output["cases"][2]["generated"]["tokens"][0] = 0


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (shift_state, "first-light, case 2, states[0][3][0]: expected "),
        (one_loop_more, "first-light, case 1, loops_taken[2]: expected 3, found 4"),
        (cut_logits, "first-light, case 1, logits: expected 3 entries, found 2 entries"),
        (not_a_number, "first-light, case 1, logits[0][0][0]: expected "),
        (other_text, "first-light, case 3, generated.tokens[0]: expected "),
    ],
)
def test_the_first_difference_is_named(
    spoil: Callable[[dict[str, Any]], None], where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = run_port(read_vector("first-light"), torch.float32)
    spoil(output)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(output))
    assert main(["conform", str(path)]) == 1
    assert capsys.readouterr().out.startswith(where)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no readable JSON"),
        ('{"schema": 2}', "not of schema 1"),
        ('{"schema": 1, "name": "x"}', "`name` is 'x'; the vectors are: first-light"),
        ('{"schema": 1, "name": "static", "dtype": "int8"}', "`dtype` is 'int8'; it may be: float64, float32"),
        ('{"schema": 1, "name": "static", "dtype": "float32", "cases": []}', "`cases` must be a list of 3"),
        ('{"schema": 1, "name": "static", "dtype": "float32", "cases": [{}, {}, {}]}', "case 1 lacks `loops_taken`"),
    ],
)
def test_what_is_no_output_is_refused(content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.json").write_text(content)
    assert main(["conform", str(tmp_path / "mine.json")]) == 2
    assert message in capsys.readouterr().err


def test_a_vector_without_output_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", str(tmp_path)]) == 2
    assert "holds no .json files" in capsys.readouterr().err
    (tmp_path / "static.json").write_text(json.dumps(run_port(read_vector("static"), torch.float64)))
    assert conform(tmp_path) == {"static": None}
    assert main(["conform", str(tmp_path)]) == 1
    assert "first-light: no output" in capsys.readouterr().out
