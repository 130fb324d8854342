"""`looplm spec` on the real specification, and on ones that are wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from looplm import spec
from looplm.cli import main
from looplm.errors import InputError
from looplm.resources import resource
from looplm.runs.checkpoint import load
from looplm.spec import check as spec_check
from looplm.spec import history as spec_history
from looplm.train.execution import Execution
from looplm.train.recipe import load_recipe

ROOT = Path(__file__).parents[2]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of its own, whose spec the commands read."""
    root = tmp_path / "checkout"
    for folder in ("spec", "looplm", "kernels", "tests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    (root / "docs" / "data").mkdir(parents=True)
    (root / "README.md").write_text("")
    for module in (spec, spec_check, spec_history):
        monkeypatch.setattr(module, "resource", lambda name: root / name)
    spec.clauses.cache_clear()
    spec.citation.cache_clear()
    yield root
    spec.clauses.cache_clear()
    spec.citation.cache_clear()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    spec.clauses.cache_clear()
    spec.citation.cache_clear()


def all_passed(root: Path) -> None:
    """Evidence in which every marked test has passed."""
    tests: dict[str, dict[str, object]] = {}
    for id, names in spec_check._marks(root).items():
        for name in names:
            tests.setdefault(name, {"clauses": [], "outcome": "passed", "sources": spec_check.sources_digest()})
            tests[name]["clauses"].append(id)  # type: ignore[attr-defined]
    path = root / spec_check.EVIDENCE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"schema": spec_check.EVIDENCE_SCHEMA, "commit": "abc", "tests": tests}))


def test_list_show_and_cite_speak_json(capsys: Captured) -> None:
    assert main(["spec", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["id"] for entry in listed] == list(spec.clauses())
    assert main(["spec", "show", "halting.fixed", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown in listed
    assert shown["citation"] == spec.citation("halting.fixed")
    assert main(["spec", "cite", "halting.fixed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"citation": shown["citation"], "version": spec.version()}]
    assert main(["spec", "cite", "halting.fixed"]) == 0
    assert capsys.readouterr().out == f"{shown['citation']}  (LoopLM spec {spec.version()})\n"


def test_check_is_green_when_all_marked_tests_have_passed(copy: Path, capsys: Captured) -> None:
    all_passed(copy)
    assert spec_check.problems() == []
    assert main(["spec", "check", "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["outdated"] == 0
    row = next(row for row in checked["matrix"] if row["id"] == "halting.fixed")
    assert "looplm.loop.halting.fixed.Fixed" in row["implementations"]
    assert row["tests"]
    assert {outcome for _, outcome in row["tests"]} == {"passed"}


@pytest.mark.parametrize("outcome", ["skipped", "failed", None])
def test_a_must_needs_a_test_that_passed(outcome: str | None, copy: Path, capsys: Captured) -> None:
    all_passed(copy)
    path = copy / spec_check.EVIDENCE
    evidence = json.loads(path.read_text())
    for name, entry in list(evidence["tests"].items()):
        if "injection.same-shape" in entry["clauses"]:
            if outcome is None:
                del evidence["tests"][name]
            else:
                entry["outcome"] = outcome
    path.write_text(json.dumps(evidence))
    assert main(["spec", "check"]) == 1
    assert f"injection.same-shape: no test of it ran and passed ({outcome or 'not run'})" in capsys.readouterr().err


def test_check_says_when_evidence_is_older_than_the_sources(copy: Path, capsys: Captured) -> None:
    all_passed(copy)
    with (copy / "looplm" / "generate.py").open("a") as file:
        file.write("\n# changed\n")
    assert main(["spec", "check"]) == 0
    assert "outcomes are older than the sources (seen at commit abc)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("looplm/think/generate.py", "# halting.nosuch: why\n", "there is no clause halting.nosuch"),
        ("looplm/think/generate.py", '"""[halting.nosuch][]"""\n', "there is no clause halting.nosuch"),
        ("docs/page.md", "See [injection.nosuch][].\n", "docs/page.md:1: there is no clause injection.nosuch"),
        ("README.md", "Changed. (addition.nosuch)\n", "README.md:1: there is no clause addition.nosuch"),
        ("docs/data/log.json", '["halting.nosuch@0123abc"]\n', "docs/data/log.json:1: there is no clause halting.nosuch"),
        (
            "tests/test_new.py",
            'import pytest\n\n\n@pytest.mark.spec("halting.nosuch")\ndef test_x() -> None: ...\n',
            "tests/test_new.py::test_x: there is no clause halting.nosuch",
        ),
    ],
)
def test_an_unknown_id_is_found_wherever_it_stands(file: str, text: str, problem: str, copy: Path) -> None:
    all_passed(copy)
    with (copy / file).open("a") as opened:
        opened.write(text)
    (found,) = spec_check.problems()
    assert found.endswith(problem)


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("halting.md", "### halting.freeze {#halting.freeze}", "### halting.fixed {#halting.fixed}", "stands twice"),
        ("halting.md", "def fixed(", "def fixed((", "the fence does not compile"),
        ("halting.md", "{#halting.freeze}", "{#halting.frees}", "halting.md:"),
        ("injection.md", "each loop MUST add", "each loop adds", "must be its sentence"),
        ("injection.ko.md", "### injection.same-shape {#injection.same-shape}", "## x", "has no Korean sentence"),
        (
            "injection.ko.md",
            "### injection.same-shape {#injection.same-shape}",
            "### injection.other {#injection.other}",
            "stands in Korean only",
        ),
    ],
)
def test_a_malformed_spec_is_refused_with_file_and_line(file: str, old: str, new: str, problem: str, copy: Path) -> None:
    all_passed(copy)
    edit(copy / "spec" / file, old, new)
    found = [line for line in spec_check.problems() if problem in line]
    assert found
    assert all(line.startswith(f"spec/{file.split('.')[0]}") and line.split(":")[1].isdigit() for line in found)


def test_a_changed_clause_shows_what_changed_and_makes_logs_stale(copy: Path, tmp_path: Path, capsys: Captured) -> None:
    spec_history.record()
    before = spec.citation("halting.kv-publish")
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"clauses": [before, "halting.gone@1234567", spec.citation("halting.fixed")]}) + "\n")
    edit(copy / "spec" / "halting.md", "min(reader_loop, s + 1)", "min(reader_loop, s)")
    now = spec.citation("halting.kv-publish")
    assert now != before
    assert main(["spec", "show", before]) == 0
    out = capsys.readouterr().out
    assert "-    return min(reader_loop, s + 1)" in out
    assert "+    return min(reader_loop, s)" in out
    assert main(["spec", "stale", str(log)]) == 1
    assert capsys.readouterr().out == f"{before} is now {now}\nhalting.gone@1234567 is now withdrawn\n"
    assert spec_history.unrecorded() == [now]
    assert spec_history.record() == [now]
    assert spec_history.unrecorded() == []
    assert [w.hash for w in spec_history.history() if w.id == "halting.kv-publish"] == [c.split("@")[1] for c in (before, now)]


def test_the_present_wordings_are_recorded() -> None:
    assert spec_history.unrecorded() == [], "run `looplm spec record`"


def test_a_hash_never_recorded_is_refused() -> None:
    with pytest.raises(InputError, match=r"halting.fixed@0000000 was never recorded; recorded are: "):
        spec_history.changes_since("halting.fixed", "0000000")
    assert spec_history.changes_since("halting.fixed", spec.citation("halting.fixed").split("@")[1]) == ""


def test_a_run_without_citations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("{}\n")
    for path in (tmp_path, tmp_path / "nosuch"):
        with pytest.raises(InputError, match=r"cites no clauses|no readable log"):
            spec_history.stale(path)


def test_the_shipped_adders_cite_what_their_presets_exercise() -> None:
    for name, preset in (("adder", "first-light"), ("parallel-adder", "parallel")):
        cited = {citation.split("@")[0] for citation in spec_history._citations(resource("looplm/assets") / name)}
        # it cites the clauses of its day: those that came later are not among them, and some have gone since
        gone = cited - set(spec.clauses())
        assert gone <= {wording.id for wording in spec_history.history()}
        recipe = replace(load_recipe(preset), halting=load(name).recipe.halting)  # it halts as it did when it was chosen
        assert cited - gone <= {*recipe.clauses(), *Execution().clauses()}
        assert {"architecture.loop", "halting.kv-publish", "addition.held-out"} <= cited


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "test"),
    [
        ("halting.md", "return min(reader_loop, s + 1)", "return min(reader_loop, s)", "tests/models"),
        ("addition.md", "if pair >= 10:", "if pair >= 9:", "tests/tasks/addition/test_problems.py"),
        ("training.md", "if 2 * l > num_loops", "if 2 * l >= num_loops", "tests/train/test_training.py"),
    ],
)
def test_changing_a_rule_in_the_spec_turns_tests_red(file: str, old: str, new: str, test: str, copy: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", copy)

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", test]
        return subprocess.run(command, cwd=copy, env={"PYTHONPATH": str(copy), "PATH": ""}, capture_output=True, text=True)

    assert run().returncode == 0
    edit(copy / "spec" / file, old, new)
    red = run()
    assert red.returncode == 1, red.stdout + red.stderr
    assert "AssertionError" in red.stdout
