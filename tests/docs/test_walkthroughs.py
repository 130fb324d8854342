"""Walkthroughs: scripts that run by themselves, whose outputs change with code and not with prose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import walkthrough

ROOT = Path(__file__).parents[2]
SCRIPTS = walkthrough.chapters(ROOT)
SMALL = """'''A script.'''

# %% [markdown] lang="en"
# # Title {#title}
#
# Words.

# %% [markdown] lang="ko"
# # 제목 {#title}
#
# 말.

# %%
x = 20 + 1  # a comment
print("hello")
2 * x
"""


LONG = {"03_halting", "06_training", "07_kernel"}


@pytest.mark.parametrize(
    "script",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in LONG else (), id=path.stem) for path in SCRIPTS],
)
def test_a_walkthrough_runs_as_a_script(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,  # a machine may be busy; a script that hangs is never right
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0, done.stderr


def project(folder: Path, script: str, module: str = "y = 1\n") -> Path:
    """A tiny checkout with one script."""
    for name, text in (("examples/01_small.py", script), ("looplm/a.py", module)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "examples" / "01_small.py"


def test_what_has_no_number_is_no_chapter() -> None:
    assert (ROOT / "examples" / "numpy_port.py").exists()
    assert all(script.stem[:2].isdigit() for script in SCRIPTS)
    assert len(SCRIPTS) >= 8


def test_cells_are_read() -> None:
    assert [(cell.code, cell.language) for cell in walkthrough.read_cells(SMALL)] == [(False, "en"), (False, "ko"), (True, "")]
    assert walkthrough.read_cells(SMALL)[0].source == "# Title {#title}\n\nWords."


def test_outputs_are_keyed_by_code_and_not_by_prose(tmp_path: Path) -> None:
    before = walkthrough.key(project(tmp_path, SMALL), tmp_path)

    def key_of(script: str, module: str = "y = 1\n") -> str:
        return walkthrough.key(project(tmp_path, script, module), tmp_path)

    assert key_of(SMALL.replace("Words.", "Other words.")) == before
    assert key_of(SMALL.replace("  # a comment", "")) == before
    assert key_of(SMALL, '"""What it does."""\n\ny = 1  # said\n') == before
    assert key_of(SMALL.replace("20 + 1", "20 + 2")) != before
    assert key_of(SMALL, "y = 2\n") != before


def test_a_page_shows_what_running_gave_and_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = project(tmp_path, SMALL)
    english = walkthrough.build(script, "en", tmp_path)
    assert "```text\nhello\n42\n```" in english["01_small.md"]
    assert english["01_small.py"] == SMALL
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it ran again"))
    korean = walkthrough.build(project(tmp_path, SMALL.replace("Words.", "Other words.")), "ko", tmp_path)
    assert "# 제목 {#title}" in korean["01_small.md"]
    assert "Other words." not in korean["01_small.md"]
    cells = json.loads(korean["01_small.ipynb"])["cells"]
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code"]
    assert "".join(cells[1]["outputs"][0]["text"]) == "hello\n42\n"


def test_a_cell_that_fails_fails_the_build(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"01_small.py, code cell 1(.|\n)*ZeroDivisionError"):
        walkthrough.build(project(tmp_path, SMALL.replace("2 * x", "1 / 0")), "en", tmp_path)
    assert not (tmp_path / "build").exists()


SOLVED = SMALL + '\n# %% tags=["solution"]\nassert x == 21\nprint("solved")\n'


def test_a_solution_is_folded_and_run(tmp_path: Path) -> None:
    made = walkthrough.build(project(tmp_path, SOLVED), "en", tmp_path)
    page, cells = made["01_small.md"], json.loads(made["01_small.ipynb"])["cells"]
    folded = page[page.index('<details class="solution" markdown="1">') : page.index("</details>")]
    assert "<summary>A solution</summary>" in folded
    assert "```text\nsolved\n```" in folded
    assert "assert x" not in page.replace(folded, "")
    assert [cell["metadata"].get("tags") for cell in cells] == [None, None, ["solution"]]
    with pytest.raises(RuntimeError, match="AssertionError"):
        walkthrough.build(project(tmp_path, SOLVED.replace("x == 21", "x == 22")), "en", tmp_path)
