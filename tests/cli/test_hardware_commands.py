"""`looplm plan`, `looplm profile` and `--profile`, as a user meets them."""

import json
from pathlib import Path

import pytest

from looplm.cli import main
from looplm.hardware import detect
from looplm.hardware.profile import load_profile, profile_names

Captured = pytest.CaptureFixture[str]
EIGHT = """
title = "an 8 GB card"
kind = "cuda"
source = "made up"
memory_gib = 8
memory_gb_per_s = 300
float32_tflop_per_s = 20
"""


def refused(capsys: Captured, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_plan_says_what_a_size_costs(capsys: Captured) -> None:
    assert main(["plan", "medium", "--profile", "m4max"]) == 0
    out = capsys.readouterr().out
    assert "Korean, medium on Apple M4 Max, 40-core GPU" in out
    assert "397,722,624" in out
    for part in ("hardware.training-peak; this plan", "wall: compute", "wall: memory", "kWh", "days"):
        assert part in out


@pytest.mark.spec("hardware.refusal")
def test_a_plan_that_does_not_fit_says_so_and_what_would(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "eight.toml").write_text(EIGHT)
    assert main(["plan", "medium", "--profile", str(tmp_path / "eight.toml")]) == 1
    out, err = capsys.readouterr()
    assert "397,722,624" in out
    refusal = err.splitlines()[-1]
    assert refusal.startswith("looplm: medium does not fit an 8 GB card: a training step of 1 row of 2,048 tokens needs ")
    assert "there are 7.20 GiB (90% of 8 GiB). What fits: another profile: a100, " in refusal


def test_a_plan_in_json_cites_its_clauses(capsys: Captured) -> None:
    assert main(["plan", "looplm-256", "--profile", "h200", "--loops", "24", "--rows", "16", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["preset"], plan["profile"], plan["fits"]) == ("looplm-256", "h200", True)
    assert plan["setting"] == {"rows": 16, "parts": 4, "dtype": "bfloat16", "recompute": False}
    found = {line["what"]: line for line in plan["lines"]}
    assert found["all"]["value"] == 791_296
    assert found["all"]["clause"].startswith("hardware.parameters@")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "huge"], "no size or recipe 'huge'"),
        (["plan", "medium", "--profile", "rtx9090"], "no profile 'rtx9090'"),
        (["plan", "medium", "--loops", "3"], "medium is a static model, which has one loop"),
        (["plan", "looplm-128", "--rows", "0"], "`--rows` must be at least 1: got 0"),
        (["plan", "looplm-128", "--utilization", "2"], "`--utilization` must be above 0 and at most 1"),
        (["profile", "show", "nosuch.toml"], "nosuch.toml does not exist; give a TOML file"),
        (["profile", "detect", "--threads", "0"], "`--threads` must be at least 1"),
        (["train", "first-light", "--force"], "`--force` goes with `--profile`"),
        (["train", "first-light", "--profile", "h200"], "the device 'cuda' is not available here"),
        (["solve", "1+1", "--force"], "`--force` goes with `--profile`"),
        (["solve", "9" * 900 + "+1", "--profile", "tiny"], "generation does not fit a tiny machine"),
    ],
)
def test_a_mistake_gets_one_clear_line(arguments: list[str], message: str, capsys: Captured) -> None:
    import torch

    if "h200" in arguments and torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    lines = refused(capsys, *arguments) if "h200" not in arguments else _last_line(capsys, *arguments)
    assert message in lines


def _last_line(capsys: Captured, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.spec("hardware.refusal", "halting.slots")
def test_memory_is_counted_with_the_loops_that_long_questions_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(EIGHT.replace("cuda", "cpu"))
    counted: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "looplm.train.execution.refuse_generation", lambda model, rows, tokens, loops, profile: counted.append((tokens, loops))
    )
    for more in ([], ["--max-loops", "8"]):
        assert main(["solve", "9" * 60 + "+1", "--mode", "parallel", "--profile", "small.toml", *more]) == 0
    assert counted == [(60 + 1 + 3 + 62, 128), (60 + 1 + 3 + 62, 8)], "62 slots"


@pytest.mark.spec("hardware.refusal")
def test_training_that_does_not_fit_is_refused_before_it_starts(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(EIGHT.replace("= 8", "= 0.001").replace("cuda", "cpu"))
    err = refused(capsys, "train", "first-light", "--profile", "small.toml")
    assert "first-light does not fit an 8 GB card: a training step of 1 row of 16 tokens needs 1.47 MiB" in err
    assert "`--force` tries all the same." in err
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]


@pytest.mark.slow
def test_training_obeys_a_profile(tmp_path: Path, capsys: Captured) -> None:
    out = str(tmp_path / "run")
    assert main(["train", "first-light", "--profile", "tiny", "--steps", "2", "--out", out]) == 0
    assert "as tiny wants it: float32 products, each batch in 12 parts" in capsys.readouterr().err
    header = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[0])
    assert (header["execution"]["parts"], header["execution"]["profile"], header["threads"]) == (12, "tiny", 1)


def test_solving_obeys_a_profile(capsys: Captured) -> None:
    for name in ("auto", "tiny"):
        assert main(["solve", "978+457", "--profile", name]) == 0
        assert capsys.readouterr().out == "978+457=1435\n"


@pytest.mark.spec("hardware.sources")
def test_a_profile_is_shown_with_its_sources(capsys: Captured) -> None:
    assert main(["profile", "list"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == profile_names()
    assert main(["profile", "show", "rtx4090"]) == 0
    shown = capsys.readouterr().out
    assert "memory_gb_per_s = 1008  NVIDIA Ada GPU Architecture" in shown
    assert "kernels.shared_memory_bytes = 101376  CUDA C++ Programming Guide" in shown
    assert main(["profile", "show", "rtx4090", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory_gib"] == 24


@pytest.mark.spec("hardware.detect")
def test_detect_proposes_a_profile_beside_the_sheets(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_SECONDS", 0)
    monkeypatch.setattr(detect, "device_kind", lambda: "cpu")
    path = tmp_path / "found.toml"
    assert main(["profile", "detect", "--out", str(path)]) == 0
    assert "Measured here, and in spec/profiles/cpu.toml:" in capsys.readouterr().err
    assert load_profile(str(path)).kind == "cpu"
    assert "already exists" in refused(capsys, "profile", "detect", "--out", str(path))
    assert main(["profile", "detect"]) == 0
    assert 'kind = "cpu"' in capsys.readouterr().out
