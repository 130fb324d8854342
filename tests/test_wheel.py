"""The wheel works where there is no checkout: spec, presets, results and the adder travel inside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

USE = """
import looplm, looplm_kernels
from pathlib import Path
from looplm import spec
from looplm.train.recipe import recipe_names
from looplm.runs.results import committed_results, others
here = Path(looplm.__file__).parents[1]
assert here == Path.cwd().parent / "installed", here
assert looplm.__version__ == spec.version()
assert spec.citation("halting.kv-publish").startswith("halting.kv-publish@")
assert spec.oracle("addition").longest_chain(999, 1) == 3
assert "first-light" in recipe_names()
assert committed_results("first-light") and others("addition")["target"]["8"] == 0.7
assert looplm.solve(looplm.load("adder"), ["978+457"])[0].answer == "1435"
print("works from", here)
"""


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_works(tmp_path: Path) -> None:
    def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    # A copy of the tracked files is built, so that nothing lands in the checkout and nothing untracked in the wheel.
    (tmp_path / "source").mkdir()
    files = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, files):
        target = tmp_path / "source" / name
        if (ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(tmp_path / "source")]
    run(*wheel, cwd=tmp_path)
    (built,) = tmp_path.glob("*.whl")
    run(*pip, "install", "--no-deps", "--target", str(tmp_path / "installed"), str(built), cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = run(sys.executable, "-c", USE, cwd=elsewhere, PYTHONPATH=str(tmp_path / "installed"))
    assert found.startswith("works from")
