"""Builds for GPUs that are not here, held to hardware profiles."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from looplm_kernels import aot

ROOT = Path(__file__).parents[2]
BUILDS = ROOT / "docs" / "data" / "builds.json"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux only")

H200 = {
    "target": "cuda:90",
    "shared_memory_bytes": 232_448,
    "registers": 255,
    "spill_bytes": 128,
    "warps": 8,
    "stages": 2,
}


def profile(**changes: object) -> aot.Profile:
    limits = {key: value for key, value in (H200 | changes).items() if key != "target"}
    return aot.Profile("h200", "cuda", 90, 132, **limits)  # type: ignore[arg-type]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "looplm_kernels.aot", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True)


@pytest.mark.spec("kernels.fits-the-profile")
def test_a_build_beyond_any_limit_is_a_problem() -> None:
    case = aot.CASES[0]
    row = {"shared_bytes": 100_000, "registers": 250, "spilled_bytes": 64, "matrix_instructions": ["mma"]}
    assert aot.problems(case, row, profile()) == []
    assert aot.problems(case, row, profile(shared_memory_bytes=99_999)) == ["shared_bytes 100,000 of at most 99,999"]
    assert aot.problems(case, row, profile(registers=249, spill_bytes=63)) == [
        "registers 250 of at most 249",
        "spilled_bytes 64 of at most 63",
    ]
    assert aot.problems(case, row | {"matrix_instructions": []}, profile()) == ["no matrix instructions"]
    grid = next(case for case in aot.CASES if case.kernel == "loop_grid")
    assert aot.problems(grid, row | {"weight_loads_in_loop": 2}, profile()) == ["2 weight loads inside the loop"]


@pytest.mark.spec("kernels.weights-stay-in-registers")
def test_a_weight_load_inside_the_longest_loop_is_seen() -> None:
    ptx = """
	ld.global.b32 {r1}, [w];
$L__BB0_1:
	ld.global.cg.b32 {r2}, [x];
$L__BB0_2:
	ld.global.gpu.acquire.b32 r3, [barrier];
	@p1 bra $L__BB0_2;
	%s
	@p2 bra $L__BB0_1;
	ld.global.b32 {r5}, [y];
"""
    assert aot.loads(ptx % "add") == {"loads_before_loop": 1, "loads_in_loop": 2, "weight_loads_in_loop": 0}
    assert aot.loads(ptx % "ld.global.v4.b32 {r4}, [w];")["weight_loads_in_loop"] == 1


@pytest.mark.spec("kernels.fits-the-profile", "kernels.weights-stay-in-registers")
def test_the_committed_builds_fit_and_none_is_missing() -> None:
    table = json.loads(BUILDS.read_text(encoding="utf-8"))
    assert table["schema"] == aot.SCHEMA
    built = {(row["kernel"], row["profile"]) for row in table["rows"] if row["triton"].startswith("3.7.")}
    assert built == {(case.name, name) for case in aot.CASES for name in case.profiles}
    for row in table["rows"]:
        assert row["problems"] == [], row
        if row["kernel"].startswith("loop_grid"):
            assert row["loads_before_loop"] > 0 and row["weight_loads_in_loop"] == 0
    versions = {row["triton"].rsplit(".", 1)[0] for row in table["rows"] if row["kernel"].startswith("loop positions")}
    assert versions == {"3.6", "3.7", "3.9"}


def test_refusals_come_in_one_line_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "builds.json"

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            aot.main([str(out), *arguments])
        assert left.value.code == 2 and not out.exists()
        return capsys.readouterr().err.splitlines()[-1]

    assert "no kernel limits for a100, h200, mi300x, rtx4090, rtx5070" in refused("--profiles", str(tmp_path))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "unset it" in refused()


@LINUX
@pytest.mark.slow
@pytest.mark.spec("kernels.fits-the-profile", "kernels.weights-stay-in-registers")
def test_the_largest_builds_fit_an_h200_and_other_versions_rows_are_kept(tmp_path: Path) -> None:
    for name in aot.MAIN:
        text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in H200.items())
        (tmp_path / f"{name}.toml").write_text(f"processors = 132\n[kernels]\n{text}\n")
    out = tmp_path / "builds.json"
    old = {"kernel": "loop positions d=256", "profile": "h200", "triton": "3.6.0"}
    out.write_text(json.dumps({"schema": 1, "rows": [old]}))
    for kernel in ("loop positions d=256", "loop_grid d=256"):
        done = run(out, "--profiles", tmp_path, "--only", kernel)
        assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert rows[0] == old
    grid = next(row for row in rows if row["kernel"] == "loop_grid d=256")
    assert grid["loads_before_loop"] > 8 and grid["loads_in_loop"] > 8 and grid["weight_loads_in_loop"] == 0
    main = next(row for row in rows if row["kernel"] == "loop positions d=256" and row["triton"] != "3.6.0")
    assert main["matrix_instructions"]
    (tmp_path / "h200.toml").write_text((tmp_path / "h200.toml").read_text().replace("232448", "1000"))
    tight = run(out, "--profiles", tmp_path, "--only", "halt_update")
    assert tight.returncode == 0
    tight = run(out, "--profiles", tmp_path, "--only", "loop_grid d=256")
    assert tight.returncode == 1 and "shared_bytes 2,048 of at most 1,000" in tight.stdout
