"""Every command: with each option at its bounds and beyond, into a pipe that nobody reads, and where signs are lacking.

Commands and options are read from the command line's own classes, so that a new one cannot be forgotten.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from looplm.cli import main
from looplm.cli.commands import all_commands
from looplm.resources import asset
from looplm.tasks.language import Language
from looplm.tasks.language.tokenizer import train_tokenizer
from looplm.train.recipe import load_recipe

Captured = pytest.CaptureFixture[str]
TEXT = "a text that is long enough to be trained on. " * 40

BASE: dict[str, list[str]] = {
    "train": ["first-light", "--out", "new"],
    "runs": [],
    "eval": ["adder"],
    "trace": ["1+1"],
    "flow": ["1+1"],
    "report": ["numbers.json"],
    "study": ["x0", "--fast"],
    "ship": ["adder", "run"],
    "plan": ["first-light"],
    "profile list": [],
    "profile show": [],
    "profile detect": [],
    "spec list": [],
    "spec show": ["halting.bounds"],
    "spec cite": ["halting.bounds"],
    "spec check": [],
    "spec stale": ["run"],
    "spec record": [],
    "conform": [],
    "convert": ["llama", "--out", "new"],
    "bench": ["generation"],
    "measure": ["transformer-start"],
    "doctor": [],
    "solve": ["1+1"],
    "data": ["addition", "--out", "new"],
    "depth": ["adder", "--out", "new"],
    "controls": ["text-run", "--out", "new"],
    "stories": ["new.txt"],
    "ask": ["Ann is here. Where is Ann?", "--model", "text-run"],
    "generate": ["text-run", "a"],
    "translate": ["I love you", "--model", "text-run"],
    "heads": ["text-run", "--out", "new"],
    "choosing": ["text-run", "--out", "new"],
    "tokenizer train": ["text", "--vocab", "285", "--out", "new"],
    "tokenizer report": ["text.model", "text"],
    "ngram": ["text-run"],
    "world write": ["new"],
    "world judge": ["text-run", "text"],
}
"""Arguments with which each command can be run."""
WRITES_THE_REPOSITORY = ("spec record", "ship", "profile detect", "doctor")
"""Not run with options that are in order: they write into the package, or measure the machine for long."""

NUMBERS = ["0", "-1", str(2**31), str(2**63), str(2**64), "9" * 40]
REALS = [*NUMBERS, "nan", "inf", "-inf", "1e308", "1e-320"]
PATHS = ["", ".", "missing/deeper/file.toml", "file", "file/below", "x" * 300]
WORDS = ["", "nosuch", "file", ".", "é한\U0001f600", "-", "a.b:C"]


WHERE_WORK_BEGINS = (
    "looplm.models.looped.LoopLM.embed",
    "looplm.tasks.addition.export.draw_training",
    "looplm.stories.simulate.lines_of",
    "looplm.tasks.language.world.stories.story",
    "looplm.tasks.language.world.judge.sample",
    "looplm.bench.generation.report",
    "looplm.lab.study.run_study",
    "looplm.lab.transformer_start.measure",
    "looplm.interop.make_vectors.write_vectors",
)


class Begun(BaseException):
    """The work has begun."""


def commands() -> dict[str, Any]:
    """Every command and subcommand by name."""
    found = {}
    for name, kind in all_commands().items():
        action = get_type_hints(kind, include_extras=True).get("action")
        subcommands = [kind] if action is None else list(_members(action))
        for each in subcommands:
            found[name if action is None else f"{name} {_subname(each)}"] = _bare(each)
    return found


def _members(hint: Any) -> Iterator[Any]:
    bare = _bare(hint)
    yield from get_args(bare) if get_origin(bare) in (Union, UnionType) else [bare]


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _subname(hint: Any) -> str:
    return next(mark.name for mark in get_args(hint)[1:] if hasattr(mark, "name"))


def options(kind: Any) -> Iterator[tuple[str, Any]]:
    """Option and type of every field that has a default; nested groups of options included."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        bare = _bare(hints[field.name])
        positional = "Positional" in repr(hints[field.name])
        if dataclasses.is_dataclass(bare):
            yield from options(bare)
        elif not positional:
            yield "--" + field.name.replace("_", "-"), bare


def bad_values(hint: Any) -> list[str]:
    """Values at the bounds of a type and beyond; none for a switch."""
    parts = [_bare(part) for part in (get_args(hint) if get_origin(hint) in (Union, UnionType, tuple) else [hint])]
    values: list[str] = []
    for part in parts:
        values += {int: NUMBERS, float: REALS, Path: PATHS, str: WORDS}.get(part, [])
        values += ["nosuch", ""] if get_origin(part) is Literal else []
    return values


CASES = [
    (name, [option, value]) for name, kind in commands().items() for option, hint in options(kind) for value in bad_values(hint)
]


def test_every_command_has_arguments_to_be_run_with() -> None:
    assert set(BASE) == set(commands())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file, and a run of text whose weights are those of the beginning."""
    from looplm.config import ModelConfig
    from looplm.interop.llama import write_llama
    from looplm.models import build_model
    from looplm.runs.checkpoint import Trained, save

    folder = tmp_path_factory.mktemp("bounds")
    (folder / "file").write_text("no model, no recipe, no numbers")
    (folder / "text").write_text(TEXT)
    (folder / "text.model").write_bytes(train_tokenizer([TEXT], 285).model)
    shutil.copy(asset("adder") / "summary.json", folder / "numbers.json")
    recipe = load_recipe("text", {"task": {"path": str(folder / "text"), "context": 16}, "evaluation": {"sizes": [8]}})
    static = ModelConfig(body="static", vocab_size=257, width=8, heads=2, mlp="swiglu", mlp_width=8, state_norm=False)
    write_llama(build_model(static), folder / "llama", 16)
    assert isinstance(recipe.task, Language)
    save(Trained(build_model(recipe.model), recipe), folder / "text-run")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(set(BASE) - set(WRITES_THE_REPOSITORY)))
def test_an_option_beyond_its_bounds_is_refused_in_one_line_or_the_work_begins(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def begin(*arguments: object, **settings: object) -> None:
        raise Begun

    monkeypatch.chdir(place)
    for where in WHERE_WORK_BEGINS:
        monkeypatch.setattr(where, begin)
    for name, change in CASES:
        if name != command:
            continue
        arguments = [*command.split(), *BASE[command], *change]
        before, by_parser = set(place.iterdir()), False
        try:
            code = main(arguments)
        except SystemExit as left:
            by_parser = True
            code = left.code if isinstance(left.code, int) else 2
        except Begun:
            code = None
        out, err = capsys.readouterr()
        told = f"looplm {' '.join(arguments)!r}: {code}\n{out[-300:]}\n{err[-600:]}"
        assert code in (None, 0, 1, 2), told
        assert "Traceback" not in err, told
        new = set(place.iterdir()) - before
        for path in new:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if code == 2:
            assert err.strip(), told
            assert by_parser or err.strip().splitlines()[-1].startswith("looplm: "), told  # what was noted stands before it
            assert not new, told


QUICKLY = {
    "eval": ["--n", "2", "--sizes", "4"],
    "depth": ["--n", "4", "--digits", "3", "--chains", "2"],
    "data": ["--count", "50", "--test-count", "2"],
    "generate": ["--max-new-tokens", "3"],
    "stories": ["--count", "20"],
    "world write": ["--stories", "20"],
}
"""What makes commands quick."""
SLOW = ("train", "study", "bench")
"""Not quick even so; tests of their own interrupt them."""


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["nobody", "ascii"])
@pytest.mark.parametrize("command", sorted(set(BASE) - set(WRITES_THE_REPOSITORY) - set(SLOW)))
def test_no_pipe_and_no_encoding_makes_a_command_fail(command: str, reader: str, place: Path) -> None:
    shutil.rmtree(place / "new", ignore_errors=True)
    (place / "new").unlink(missing_ok=True)
    words = [sys.executable, "-m", "looplm", *command.split(), *BASE[command], *QUICKLY.get(command, [])]
    environment = os.environ | {"PYTHONUTF8": "0"} | ({"PYTHONIOENCODING": reader} if reader == "ascii" else {})
    read_end, write_end = os.pipe()
    os.close(read_end)
    to = write_end if reader == "nobody" else subprocess.DEVNULL
    done = subprocess.run(words, cwd=place, env=environment, stdout=to, stderr=subprocess.PIPE, timeout=120)
    os.close(write_end)
    told = done.stderr.decode()
    assert "Traceback" not in told
    assert "othing was" not in told, "as if what had been written were not there"
    refused_for_another_reason = done.returncode == 2 and told.startswith("looplm: ")
    assert done.returncode in ((0, 1, 141) if reader == "nobody" else (0, 1)) or refused_for_another_reason
