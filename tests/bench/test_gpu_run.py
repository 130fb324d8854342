"""`make gpu` without a GPU: every step on a CPU, and what happens when a step, the clock or a package fails."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from looplm.bench import gpu
from looplm.bench.kernels import compile_whole
from looplm.errors import InputError


@pytest.mark.parametrize("step", [step.name for step in gpu.STEPS if step.name != "tests"])
def test_every_step_gives_its_rows_on_a_cpu(step: str) -> None:
    rows = list(gpu.rows_of(step, dry=True))
    assert rows and json.dumps(rows)


def test_a_dry_run_goes_through_all_steps_to_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "rows_of", lambda name, dry: iter([{"dry": dry}]))
    monkeypatch.setattr(gpu, "in_child", lambda step, left, dry: (list(gpu.rows_of(step.name, dry)), ""))
    assert gpu.main(["--dry-run", "--out", str(tmp_path / "found.json")]) == 0
    assert [step["outcome"] for step in json.loads((tmp_path / "found.json").read_text())["steps"]] == ["done"] * len(gpu.STEPS)
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {tmp_path / 'found.json'}"


@pytest.mark.slow
def test_the_tests_of_a_gpu_are_all_skipped_in_a_dry_run_by_a_process_of_their_own() -> None:
    rows, wrong = gpu.in_child(gpu.STEPS[0], 300, dry=True)
    assert not wrong and len(rows) >= 7 and {row["outcome"] for row in rows} == {"skipped"}


def test_a_step_that_fails_loses_no_other_and_the_file_grows_with_each(tmp_path: Path) -> None:
    out, seen = tmp_path / "found.json", []

    def run(step: gpu.Step, left: float) -> gpu.Found:
        seen.append(len(json.loads(out.read_text())["steps"]) if out.exists() else 0)
        return [{"n": 1}], "exit 1" if step.name == "decode 1" else ""

    written = gpu.execute(out, {}, run)
    assert seen == list(range(len(gpu.STEPS)))
    assert [step["step"] for step in written["steps"] if step["outcome"] == "failed"] == ["decode 1"]
    assert len(written["rows"]) == len(gpu.STEPS) and json.loads(out.read_text()) == written


def test_what_is_interrupted_keeps_what_it_has(tmp_path: Path) -> None:
    def run(step: gpu.Step, left: float) -> gpu.Found:
        if step.name == "adder":
            raise KeyboardInterrupt
        return [{"n": 1}], ""

    with pytest.raises(KeyboardInterrupt):
        gpu.execute(tmp_path / "found.json", {}, run)
    assert len(json.loads((tmp_path / "found.json").read_text())["rows"]) == 3


def test_what_no_longer_fits_is_skipped_and_named(tmp_path: Path) -> None:
    time, limits = [0.0], []

    def run(step: gpu.Step, left: float) -> gpu.Found:
        limits.append(left)
        time[0] += left
        return [], ""

    written = gpu.execute(tmp_path / "found.json", {}, run, minutes=4.6, now=lambda: time[0])
    assert [round(limit) for limit in limits] == [150, 110, 16] and time[
        0
    ] <= 276  # 16 s are too few to decode, and enough for the adder
    assert [step["step"] for step in written["steps"] if step["outcome"] == "done"] == ["tests", "decode 1", "adder"]
    assert {step["why"] for step in written["steps"] if step["outcome"] == "skipped"} == {"16 s were left", "0 s were left"}


def test_a_step_that_hangs_is_stopped_with_the_rows_that_it_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import time; print('{\"n\": 1}', flush=True); time.sleep(60)"
    popen = subprocess.Popen

    def hang(command: list[str], **options: Any) -> Any:
        return popen([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", hang)
    assert gpu.in_child(gpu.STEPS[1], 2, dry=True) == ([{"n": 1}], "stopped after 2 s")


def test_all_that_is_missing_is_named_at_once_with_where_wheels_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "NEEDED", {"torch": "torch", "no_such_one": "no-such-one", "nor_this": "nor-this"})
    monkeypatch.setattr(gpu, "WHEELS", tmp_path)
    with pytest.raises(InputError, match=r"lacks no-such-one, nor-this: put a wheel of each into"):
        gpu.provide()


def test_nothing_but_the_standard_library_is_needed_to_say_what_is_missing() -> None:
    code = "import sys, looplm.bench.gpu; print(*({'torch', 'pydantic', 'tyro', 'triton'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_compiled_opponent_raises_where_it_would_have_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(3)

    def step(first: int, last: int) -> None:
        x.add_(first * last)

    with torch._dynamo.config.patch(recompile_limit=2):
        compiled = compile_whole(step, backend="eager")
        compiled(2, 3)
        compiled(4, 5)
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            compiled(6, 7)
    torch._dynamo.reset()
