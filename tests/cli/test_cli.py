"""The command line as a user meets it: one clear line for a mistake, and the right exit code."""

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from looplm.cli import main
from looplm.models import build_model
from looplm.runs.checkpoint import Trained, save
from looplm.spec import oracle
from looplm.train.recipe import load_recipe

Captured = pytest.CaptureFixture[str]


def refused(capsys: Captured, *arguments: str) -> str:
    """Run, check that it was refused in one line, and give that line."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("looplm: ")
    assert err.count("\n") == 1
    return err


def test_solve_prints_the_sum(capsys: Captured) -> None:
    assert main(["solve", "978+457"]) == 0
    assert capsys.readouterr().out == "978+457=1435\n"


def test_solve_prints_json(capsys: Captured) -> None:
    assert main(["solve", "978+457", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["problem"], line["answer"]) == ("978+457", "1435")
    assert len(line["loops_taken"]) == 5


def test_solve_in_parallel_prints_loops_and_work(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "sums.txt").write_text("99999999+1\n12+30\n")
    assert main(["solve", str(tmp_path / "sums.txt"), "--mode", "parallel", "--json"]) == 0
    long, short = map(json.loads, capsys.readouterr().out.splitlines())
    assert (long["answer"], short["answer"]) == ("100000000", "42")
    assert (len(long["loops_taken"]), len(short["loops_taken"])) == (10, 4), "one for each slot"
    assert long["block_evaluations"] > short["block_evaluations"]
    assert max(long["loops_taken"]) > max(short["loops_taken"])


def test_solve_halts_as_it_is_told(capsys: Captured) -> None:
    assert main(["solve", "978+457", "--json", "--halting", "fixed", "--max-loops", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["loops_taken"] == [4] * 5


def test_solve_reads_a_file_and_checks_it(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "sums.txt").write_text("1+2\n\n 0099 + 1 \n12345678901234567890+1\n")
    assert main(["solve", str(tmp_path / "sums.txt"), "--check"]) == 0
    out, err = capsys.readouterr()
    assert out == "1+2=3\n99+1=100\n12345678901234567890+1=12345678901234567891\n"
    assert err == "3 of 3 right\n"


def test_solve_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("5+5\n"))
    assert main(["solve", "-"]) == 0
    assert capsys.readouterr().out == "5+5=10\n"


def test_solve_goes_on_past_bad_lines_and_counts_them(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "sums.txt").write_text("1+2\nx+y\n" + "9" * 5000 + "+1\n4+4\n")
    assert main(["solve", str(tmp_path / "sums.txt")]) == 1
    out, err = capsys.readouterr()
    assert out == "1+2=3\n4+4=8\n"
    lines = err.splitlines()
    assert len(lines) == 3
    assert "line 2: 'x+y' is not a sum" in lines[0]
    assert "line 3: an operand has 5,000 digits: at most 1,000" in lines[1]
    assert lines[2] == "looplm: 2 of 4 lines were no sums and were passed over."


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_every_backend_solves_sums(backend: str, capsys: Captured) -> None:
    assert main(["solve", "978+457", "--backend", backend]) == 0
    assert capsys.readouterr().out == "978+457=1435\n"


def test_a_wrong_answer_fails_the_check(tmp_path: Path, capsys: Captured) -> None:
    recipe = load_recipe("first-light")
    save(Trained(build_model(recipe.model), recipe), tmp_path)  # knows nothing
    assert main(["solve", "978+457", "--model", str(tmp_path), "--check"]) == 1
    first, ran_out = capsys.readouterr().err.splitlines()
    assert first == "0 of 1 right"
    assert "ran out of loops" in ran_out, "it is never sure"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "12-5"], "'12-5' is neither a sum such as 978+457 nor a file"),
        (["solve", "abc"], "'abc' is neither a sum"),
        (["solve", "a+b"], "'a+b' is not a sum"),
        (["solve", ""], "'' is neither a sum"),
        (["solve", "9" * 5000 + "+1"], "an operand has 5,000 digits: at most 1,000 are allowed"),
        (["solve", "9" * 5000], "is neither a sum"),
        (["solve", "1+1", "--model", "nosuch"], "nosuch does not exist; give a run folder"),
        (["solve", "1+1", "--device", "tpu"], "the device 'tpu' is not available here; there is: cpu"),
        (
            ["solve", "1+1", "--mode", "parallel", "--model", "adder"],
            "`--mode` is parallel, but adder was trained to answer left-to-right",
        ),
        (
            ["solve", "1+1", "--halting", "confidence", "--threshold", "2"],
            "`threshold`: Input should be less than or equal to 1",
        ),
        (["trace", "1+1", "--min-loops", "9"], "`min_loops` (9) must not exceed `max_loops` (6)"),
        (["eval", "adder", "--max-loops", "0"], "`max_loops`: Input should be greater than or equal to 1 (got 0)"),
        (["eval", "adder", "--epsilon", "0.1"], "`epsilon`: has no meaning for the halting rule 'confidence'"),
        (["solve", "1+1", "--backend", "triton"], "'triton' cannot run this: the fused kernels need a CUDA device"),
        (["trace", "1+2+3"], "'1+2+3' is not a sum"),
        (["eval"], "no model was given"),
        (["eval", "adder", "parallel-adder", "adder"], "adder is given twice"),
        (["eval", "nosuch"], "nosuch does not exist"),
        (["train", "nosuch"], "no recipe 'nosuch'; there are: ask, babi-16, babi-16-frozen"),
        (["train", "first-light", "--steps", "0"], "greater than or equal to 1"),
        (["report", "nosuch.json"], "nosuch.json does not exist"),
        (["spec", "show", "halting.nosuch"], "There is no clause 'halting.nosuch'; the nearest are halting."),
        (["data", "addition", "--out", "OUT", "--count", "99", "--max-digits", "1"], "found only"),
        (["data", "addition", "--out", "OUT", "--min-digits", "5"], "must not exceed"),
    ],
)
def test_a_mistake_gets_one_clear_line(
    arguments: list[str], message: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def test_an_empty_file_is_refused(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "empty.txt").write_text("\n  \n")
    assert "empty.txt holds no sums" in refused(capsys, "solve", str(tmp_path / "empty.txt"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "is not a text file" in refused(capsys, "solve", str(tmp_path / "binary"))


def test_an_out_that_holds_something_is_refused(tmp_path: Path, capsys: Captured) -> None:
    for arguments in (["train", "first-light"], ["eval", "adder"], ["data", "addition"]):
        assert "already exists; nothing is overwritten" in refused(capsys, *arguments, "--out", str(tmp_path))


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot make the folder" in refused(capsys, "train", "first-light", "--out", str(tmp_path / "file" / "run"))


def test_a_damaged_model_is_refused(tmp_path: Path, capsys: Captured) -> None:
    recipe = load_recipe("first-light")
    save(Trained(build_model(recipe.model), recipe), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "model.safetensors is damaged" in refused(capsys, "solve", "1+1", "--model", str(tmp_path))


def test_models_of_two_recipes_get_a_table_each(capsys: Captured) -> None:
    assert main(["eval", "adder", "parallel-adder", "--sizes", "4", "--n", "5"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Problems solved exactly") == 2
    assert "2 seeds" not in shown


def test_eval_and_report_work_together(tmp_path: Path, capsys: Captured) -> None:
    assert main(["eval", "adder", "--sizes", "4", "6", "--n", "5", "--out", str(tmp_path / "summary.json")]) == 0
    out = capsys.readouterr().out
    assert "100 [" in out
    assert "70.0" not in out, "8 digits were not asked for"
    assert main(["report", str(tmp_path / "summary.json"), "--figure", str(tmp_path / "figure.svg")]) == 0
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert main(["eval", "adder", "--sizes", "4", "--n", "5", "--halting", "fixed", "--max-loops", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])["results"][0]
    how = result["evaluation"]
    assert (how["seed"], how["settings"]["rule"], how["settings"]["max_loops"]) == (1, "fixed", 3)
    assert {"commit", "device", "dtype", "threads", "torch"} <= set(how)
    assert result["cells"][0]["mean_loops"] == 3


@pytest.mark.spec("addition.held-out", "addition.training-draw")
def test_data_writes_what_datasets_loads(tmp_path: Path) -> None:
    from datasets import load_dataset

    out = tmp_path / "set"
    assert main(["data", "addition", "--out", str(out), "--count", "300", "--test-digits", "5", "--test-count", "7"]) == 0
    files = {name: str(out / f"{name}.parquet") for name in ("train", "test")}
    spec = oracle("addition")
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    train, test = loaded["train"], loaded["test"]
    assert len({(row["a"], row["b"]) for row in train}) == len(train) == 300
    assert [row["set"] for row in test] == ["uniform"] * 7 + ["carry-heavy"] * 7
    for row in [*train, *test]:
        a, b = int(row["a"]), int(row["b"])
        assert spec.held_out(a, b) == (row["set"] != "train")
        assert (row["carries"], row["longest_chain"]) == (spec.carries(a, b), spec.longest_chain(a, b))
        assert a + b == int(row["sum"])
        assert row["prompt"] == f"{row['a'][::-1]}+{row['b'][::-1]}="
        assert row["answer"] == row["sum"][::-1]


def test_spec_show_prints_citation_sentence_and_code(capsys: Captured) -> None:
    assert main(["spec", "show", "halting.kv-publish"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("halting.kv-publish@")
    assert "return min(reader_loop, s + 1)" in out
    assert "[1, 2, 3, 3, 3, 3]" in out


def looplm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "looplm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


@pytest.mark.slow
def test_help_names_the_commands_and_no_colour_reaches_a_pipe() -> None:
    helped = looplm("--help")
    assert helped.returncode == 0
    for command in ("train", "eval", "solve", "trace", "report", "data", "spec"):
        assert command in helped.stdout
    traced = looplm("trace", "978+457")
    assert traced.returncode == 0
    assert "978+457 → 1435 (right)" in traced.stdout
    assert "\x1b" not in traced.stdout
    colour = re.compile(r"\x1b\[([0-9]+;)*3[0-9]m")
    assert not colour.search(looplm("trace", "978+457", NO_COLOR="1", FORCE_COLOR="1").stdout)
    assert colour.search(looplm("trace", "978+457", FORCE_COLOR="1", NO_COLOR="").stdout)


def test_naming_the_rule_of_the_preset_changes_only_what_is_given() -> None:
    from looplm.cli.halting import HaltingOptions
    from looplm.loop.halting.confidence import Confidence
    from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
    from looplm.train.recipe import load_recipe

    known = load_recipe("parallel-known").halting
    made = HaltingOptions(halting="confidence", threshold=0.9, in_order=True).resolve(known)
    assert made.answer == Confidence(64, threshold=0.9, in_order=True, unknown_id=15)
    assert made.prompt == known.prompt
    other = HaltingOptions(halting="two-equal-argmaxes").resolve(known)
    assert other.answer == TwoEqualArgmaxes(64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "adder", "--seed", "9" * 23], "`seed` must be from"),
        (["eval", "adder", "--device", "cpu:x"], "'cpu:x' is not available here"),
        (["eval", "adder", "--device", "cpu:7"], "'cpu:7' is not available here"),
        (["eval", "adder", "--device", "cpu:"], "'cpu:' is not available here"),
        (["eval", "adder", "--device", "warp"], "'warp' is not available here"),
        (["solve", "1+1", "--threads", "999999"], "`--threads` must be from 1 to"),
        (["solve", "1+1", "--threads", "0"], "`--threads` must be from 1 to"),
    ],
)
def test_a_number_or_name_out_of_bounds_is_refused_in_one_line(capsys: Captured, arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("CUDA out of memory")]
)
def test_a_lack_of_memory_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def solve(*arguments: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr("looplm.tasks.addition.solve.solve", solve)
    assert main(["solve", "1+1"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("looplm: there is not enough memory") and told.count("\n") == 1


def test_another_error_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def solve(*arguments: object, **settings: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("looplm.tasks.addition.solve.solve", solve)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["solve", "1+1"])


@pytest.mark.parametrize(
    "arguments",
    [["trace", "1+1"], ["flow", "1+1"], ["plan", "looplm-256", "--profile", "h200"], ["report", "x.json"]],
    ids=lambda words: words[0],
)
def test_a_figure_is_svg_and_png(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, *arguments, "--figure", str(tmp_path / "new" / "figure.txt"))
    assert "a figure is written as .svg and .png: got " in told
    assert not list(tmp_path.iterdir())
