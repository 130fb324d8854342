"""A model trained for a moment, asked from the command line."""

from pathlib import Path
from typing import Any

import pytest

from looplm.cli import main

TINY = {"model.width": 16, "model.heads": 2, "model.layers": 1, "model.mlp_width": 16, "training.steps": 2}
TINY |= {"training.batch_size": 4, "evaluation.problems_per_cell": 3}


@pytest.mark.spec("translation.refused", "seq2seq.writing")
def test_a_run_translates_and_says_what_is_right(tmp_path: Path, no_pictures: None, capsys: Any) -> None:
    run = str(tmp_path / "run")
    changes = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    assert main(["train", "grammar", *changes, "--out", run]) == 0
    capsys.readouterr()
    assert main(["translate", "I love you", "--model", run]) == 0
    said = capsys.readouterr()
    assert said.out.strip()
    assert "나는 너를 사랑한다" in said.err
    assert main(["translate", "I adore you", "--model", run]) == 2
    assert "a verb that fits its subject: got 'adore'" in capsys.readouterr().err
    assert main(["translate", "I love you", "--model", "adder"]) == 2
    assert "was trained on the task addition; give a run of `looplm train grammar`" in capsys.readouterr().err
