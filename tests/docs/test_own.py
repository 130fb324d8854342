"""The page on one's own model does what it says, in an empty folder; only smaller."""

import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from looplm.cli import main
from looplm.train.trainer import Step, Trainer

PAGE = Path(__file__).parents[2] / "docs/own.md"
FILE = re.compile(r"`(?P<name>\w+\.\w+)`[^`]*\n\n```(?:toml|python)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = ["--set", "training.steps=4", "--set", "training.batch_size=4", "--set", "evaluation.problems_per_cell=5"]
SMALL_MODEL = ["--set", "model.width=16", "--set", "model.heads=2", "--set", "model.mlp_width=16", "--set", "model.layers=1"]
SMALL_TEXT = ["--set", "task.context=24", "--set", "evaluation.sizes=[8]"]


def files() -> dict[str, str]:
    return {match["name"]: match["content"] for match in FILE.finditer(PAGE.read_text(encoding="utf-8"))}


def test_no_file_on_the_page_has_more_lines_than_the_page_says() -> None:
    most = int(re.findall(r"in (\d+) lines", PAGE.read_text(encoding="utf-8"))[0])
    assert len(files()) == 3
    for name, content in files().items():
        own = content.partition("\n\n\n")[2] or content  # what stands below the imports
        assert len([line for line in own.splitlines() if line.strip()]) <= most, name


@pytest.mark.spec("tasks.face", "training.resume")
def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "reverse", raising=False)
    for name, content in files().items():
        Path(name).write_text(content, encoding="utf-8")
    Path("my.txt").write_text("Once upon a time there was a loop. 옛날 옛적에. " * 20, encoding="utf-8")
    lines = [line for fence in COMMANDS.findall(PAGE.read_text(encoding="utf-8")) for line in fence.splitlines()]
    assert [line.split()[0] for line in lines].count("export") == 1
    codes = [run(line, monkeypatch) for line in lines if line.startswith("looplm ")]
    assert codes == [0, 0, 128 + signal.SIGINT, 0, 0, 0, 0, 0]
    out = capsys.readouterr().out
    assert "Bits per byte" in out
    assert "Once upon a time" in out
    assert "bacc → " in out
    assert len(next(Path("runs/my").iterdir()).joinpath("log.jsonl").read_text().splitlines()) == 1 + 4
    monkeypatch.delitem(sys.modules, "reverse", raising=False)


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """One command of the page, at a tiny size; the training that the page stops by hand is stopped after two steps."""
    words = shlex.split(line)[1:]
    if words[0] == "train":
        words += SMALL + SMALL_MODEL + ([] if words[1] == "reverse.toml" else SMALL_TEXT)
    if words[0] == "eval":
        words += ["--n", "5"]
    if words[:2] != ["train", "my.toml"] or "--resume" in words:
        return main(words)
    step = Trainer.step

    def stopped(trainer: Trainer) -> Step:
        if trainer.steps_done == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", stopped)
        return main(words)
