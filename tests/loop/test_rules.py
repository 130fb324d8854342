"""A rule is one file: from a table and back, named in a recipe and on the command line, run, cited; nothing else changes."""

import json
import sys
from collections.abc import Iterator
from dataclasses import make_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import halting_rules, simple_rules
from tomli_w import dumps

import looplm
import looplm.loop.halting as folder
from looplm.cli import main
from looplm.errors import InputError
from looplm.loop.halting import RULES, Bounded, ByRole, HaltingRule, parse_halting
from looplm.loop.halting import as_table as rules_as_table
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.gate import Gate
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.models.looped import looped
from looplm.runs.checkpoint import save
from looplm.runs.provenance import provenance
from looplm.settings import as_table, parse
from looplm.tasks.addition.problems import collate, parse_problem, problems_of
from looplm.think.batched import Thinking
from looplm.think.trace import trace_text
from looplm.train.execution import Execution
from looplm.train.recipe import Recipe, load_recipe, read_recipe, recipe_names

RULE = '''"""A rule that no file of the package knows: a token is ready after every n-th loop."""

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from looplm.loop.halting import Bounded, Evidence


@dataclass(frozen=True)
class EveryNth(Bounded):
    """Ready after loops n, 2n, ..."""

    n: Annotated[int, Field(ge=1)] = field(kw_only=True)

    def ready(self, seen: Evidence):
        return (seen.l % self.n == 0).expand_as(seen.active)

    def clauses(self):
        return (*super().clauses(), "halting.threshold-monotone")


CHOICE = EveryNth
'''
TABLE = {"rule": "every-nth", "n": 3, "max_loops": 8}


def forget(name: str) -> None:
    sys.modules.pop(name, None)
    if hasattr(folder, name.rpartition(".")[2]):
        delattr(folder, name.rpartition(".")[2])


@pytest.fixture
def dropped(tmp_path: Path) -> Iterator[Path]:
    """The file lies in a folder of the package's path, as if it had been put beside the others."""
    (tmp_path / "every_nth.py").write_text(RULE)
    folder.__path__.append(str(tmp_path))
    yield tmp_path
    folder.__path__.remove(str(tmp_path))
    forget("looplm.loop.halting.every_nth")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The file lies anywhere on the path of Python."""
    (tmp_path / "my_rules.py").write_text(RULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_rules:EveryNth"
    sys.modules.pop("my_rules", None)


def check_everywhere(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe, the plain pass, the batched one, a trace, the provenance of a run, and the command line."""
    table = {**TABLE, "rule": name}
    preset = load_recipe("first-light", {"halting": table})
    rule = preset.halting
    assert RULES.name_of(type(rule.answer)) == name
    assert as_table(preset)["halting"] == table | {"min_loops": 1}
    assert parse(Recipe, as_table(preset), where="test") == preset

    adder = looped(looplm.load("adder").model, "this test")
    question = collate(problems_of([parse_problem("978+457")]), "double-reversed", "left-to-right")
    real, answer = question.real, question.scored
    plain = adder.think(question.tokens, rule, real=real, answer=answer)
    assert set(plain.loops_taken[answer].tolist()) == {3}
    assert set(plain.loops_taken[real & ~answer].tolist()) == {8}, "the prompt runs all loops"
    thinking = Thinking(adder, question.tokens, rule, real=real, answer=answer)
    while bool(thinking.running.any()):
        thinking.advance()
    assert torch.equal(thinking.loops_taken[:, : real.shape[1]], plain.loops_taken)

    trace = trace_text(adder, preset.task, "978+457", rule)
    assert (trace.rule, trace.prompt_rule) == (name, "fixed")
    assert {token.halt_reason for token in trace.tokens if token.role == "answer"} == {name}

    cited = {citation.partition("@")[0] for citation in provenance(preset, 0, torch.device("cpu"), Execution())["clauses"]}
    assert {"halting.bounds", "halting.roles", "halting.threshold-monotone"} <= cited
    assert "halting.two-equal-argmaxes" not in cited

    capsys.readouterr()
    assert main(["solve", "978+457", "--json", "--halting", name, "--max-loops", "8"]) == 2
    assert f"`n`: must be given for the halting rule '{name}'" in capsys.readouterr().err


def test_a_file_in_the_folder_is_a_rule_everywhere(dropped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "every-nth" in RULES.names()
    check_everywhere("every-nth", capsys)


def test_a_rule_outside_the_package_is_one_by_its_path(outside: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outside not in RULES.names()
    check_everywhere(outside, capsys)


def test_a_model_whose_recipe_names_a_rule_of_ones_own_is_loaded_and_run(
    dropped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adder = looplm.load("adder")
    preset = load_recipe("first-light", {"halting": TABLE})
    save(replace(adder, recipe=preset), tmp_path / "mine")
    assert main(["solve", "978+457", "--json", "--model", str(tmp_path / "mine")]) == 0
    assert json.loads(capsys.readouterr().out)["loops_taken"] == [3] * 5


def test_the_folder_holds_the_rules_and_the_clauses_that_they_name() -> None:
    assert RULES.names() == ["confidence", "fixed", "gate", "prefix-stability", "state-change", "two-equal-argmaxes"]
    settings = {"threshold": 0.5, "epsilon": 0.1}
    for name, kind in zip(RULES.names(), RULES, strict=True):
        table = {key: value for key, value in settings.items() if key in kind.__dataclass_fields__}  # type: ignore[attr-defined]
        rule = parse_halting({"rule": name, **table}, where="this halting").answer
        assert type(rule) is kind
        assert f"halting.{name}" in ByRole.of(rule).clauses()


@given(halting_rules())
def test_a_table_gives_its_rule_again(rule: HaltingRule) -> None:
    rules = ByRole.of(rule)
    table = rules_as_table(rules)
    assert parse_halting(table, where="this table") == rules
    assert json.loads(json.dumps(table)) == table
    assert dumps(table)


@given(simple_rules(), st.integers(0, 1))
def test_the_prompt_is_written_unless_it_is_what_it_is_by_itself(answer: HaltingRule, more: int) -> None:
    rules = ByRole(answer, Fixed(answer.max_loops + more))
    assert ("prompt" in rules_as_table(rules)) == bool(more)
    assert parse_halting(rules_as_table(rules), where="this table") == rules


def test_without_a_table_two_equal_argmaxes_decides_within_six_loops() -> None:
    table = as_table(load_recipe("first-light"))
    del table["halting"]
    assert parse(Recipe, table, where="test").halting == ByRole(TwoEqualArgmaxes(6), Fixed(6))


@pytest.mark.parametrize("name", recipe_names())
def test_a_preset_cites_the_clauses_of_its_rules(name: str) -> None:
    recipe = read_recipe(name)
    halting = recipe.halting
    for rule in (halting.answer, halting.prompt):
        assert f"halting.{RULES.name_of(type(rule))}" in recipe.clauses()


@pytest.mark.spec("halting.bounds", "halting.in-order", "halting.confidence", "halting.not-known-yet")
def test_a_rule_cites_what_its_settings_ask_for() -> None:
    plain = Confidence(8, threshold=0.9)
    assert plain.clauses() == ("halting.bounds", "halting.confidence")
    assert Confidence(8, threshold=0.9, in_order=True).clauses() == ("halting.bounds", "halting.in-order", "halting.confidence")
    assert Confidence(8, threshold=0.9, unknown_id=0).clauses() == (*plain.clauses(), "halting.not-known-yet")


@pytest.mark.spec("halting.wait-to-think")
def test_wait_to_think_is_cited_where_confidence_decides_for_both() -> None:
    both = ByRole(Confidence(8, threshold=0.99), Confidence(8, threshold=0.3))
    assert "halting.wait-to-think" in both.clauses()
    assert "halting.wait-to-think" not in ByRole(Confidence(8, threshold=0.99), Fixed(8)).clauses()


def test_all_mistakes_of_both_roles_are_named_at_once_with_those_of_the_recipe() -> None:
    table = as_table(load_recipe("first-light"))
    table["training"]["steps"] = 0
    table["halting"] = {"rule": "confidence", "treshold": 0.9, "max_loops": 0, "prompt": {"rule": "state-change", "epsilon": 0}}
    with pytest.raises(InputError) as caught:
        parse(Recipe, table, where="my.toml")
    message = str(caught.value)
    for part in (
        "`training.steps`: Input should be greater than or equal to 1 (got 0)",
        "`halting.treshold`: has no meaning for the halting rule 'confidence' (got 0.9); did you mean threshold?",
        "`halting.threshold`: must be given for the halting rule 'confidence'",
        "`halting.max_loops`: Input should be greater than or equal to 1 (got 0)",
        "`halting.prompt.epsilon`: Input should be greater than 0 (got 0)",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rule": "confidense"}, "`rule`: there is no halting rule 'confidense'; did you mean confidence"),
        ({"rule": 3}, "`rule`: there is no halting rule '3'"),
        ({"rule": "no_such_module:Rule"}, "`rule`: .*there is no module 'no_such_module'"),
        ({"rule": "pathlib:Path"}, "`rule`: 'pathlib:Path' is no halting rule: it lacks `max_loops`"),
        ({"rule": "looplm.spec.check:Row"}, "it lacks `max_loops`"),
        ({"prompt": 3}, "`prompt`: must be a table that names a `rule`"),
        ({"prompt": {"rule": "fixed", "min_loops": 7}}, r"`prompt`: `min_loops` \(7\) must not exceed `max_loops` \(6\)"),
    ],
)
def test_a_rule_that_is_none_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_halting(table, where="this halting")


def test_a_dataclass_that_is_no_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("no_rules")
    setattr(module, "Nothing", make_dataclass("Nothing", [("max_loops", int, 3)]))  # noqa: B010
    monkeypatch.setitem(sys.modules, "no_rules", module)
    with pytest.raises(InputError, match="'no_rules:Nothing' is no halting rule: it lacks `__call__`"):
        parse_halting({"rule": "no_rules:Nothing"}, where="this halting")


def test_a_rule_made_in_python_checks_itself() -> None:
    with pytest.raises(ValueError, match="threshold"):
        Confidence(8, threshold=1.5)
    with pytest.raises(ValueError, match="must not exceed"):
        TwoEqualArgmaxes(3, 4)
    with pytest.raises(ValueError, match="threshold"):
        Gate(3)  # type: ignore[call-arg]
    assert isinstance(Fixed(3), Bounded)
