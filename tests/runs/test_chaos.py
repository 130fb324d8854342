"""A run that is struck at any moment goes on, and comes to what the undisturbed run comes to, bit for bit.

Runs happen in forked children. A moment is a change of a file below the run's folder, just before it happens or with
half of it written, or the end of a step: the moments of a run have numbers, and a child strikes itself at one of them.
"""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import CPU, outcome
from typeguard import suppress_type_checks

from looplm.cli import main
from looplm.runs.folder import RunFolder
from looplm.runs.record import state_of
from looplm.runs.run import Keeping, run_recipe
from looplm.train.recipe import load_recipe

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")

RECIPE = """
extends = "parallel"
title = "a recipe that draws all that can be drawn"

[model]
width = 8
heads = 2
mlp_width = 16

[training]
steps = 40
batch_size = 4
dropout = 0.1
validate_every = 10
max_loops = 3
restart_loops = 2

[halting]
max_loops = 4

[halting.prompt]
max_loops = 4

[evaluation]
sizes = [2, 3]
problems_per_cell = 4
"""
EVERY = 3
"""Steps between two checkpoints."""
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
SEED = 3


@dataclass
class Moments:
    """Counts the moments of a run, and strikes at one."""

    folder: Path
    strike: Callable[[int, str], None] = lambda number, what: None
    passed: int = 0
    writes: Callable[..., int] = Path.write_bytes

    def watch(self) -> "Moments":
        """From now on, in this process."""
        sys.addaudithook(self._hear)
        Path.write_bytes = lambda path, content: _write(self, path, content)  # type: ignore[method-assign,assignment]
        return self

    def pass_by(self, what: str) -> None:
        self.passed += 1
        self.strike(self.passed, what)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or (event == "open" and not int(arguments[2]) & (os.O_WRONLY | os.O_RDWR)):
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if path == str(self.folder) or path.startswith(f"{self.folder}{os.sep}"):
            self.pass_by(f"{event.removeprefix('os.')} {os.path.relpath(path, self.folder.parent)}")


def _write(moments: Moments, path: Path, content: bytes) -> int:
    if str(path).startswith(f"{moments.folder}{os.sep}"):
        moments.writes(path, content[: len(content) // 2])
        moments.pass_by(f"half of {os.path.relpath(path, moments.folder.parent)}")
    return moments.writes(path, content)


def child(work: Callable[[], int], errors: Path | None = None) -> int:
    """The exit code of some work in a forked child; negative, if a signal ended it."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            if errors:
                os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                sys.stderr = os.fdopen(2, "w", buffering=1)
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may have it ignored
            with suppress_type_checks():
                code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kept_apart(folder: Path) -> None:
    """Keep a copy of the last checkpoint, moments included, when a run forgets it."""
    forget = RunFolder.forget_checkpoints

    def copy_and_forget(run: RunFolder) -> None:
        newest = sorted((run.path / "checkpoints").glob("step-*/manifest.json"))
        if newest and not (copy := folder.with_name(f"{folder.name} moments")).exists():
            shutil.copytree(newest[-1].parent, copy)
        forget(run)

    RunFolder.forget_checkpoints = copy_and_forget  # type: ignore[method-assign]


def train(recipe: Path, folder: Path, resume: bool, strike: Callable[[int, str], None] = lambda number, what: None) -> int:
    kept_apart(folder)
    moments = Moments(folder, strike).watch()
    keeping = Keeping(checkpoint_every=EVERY, on_step=lambda step: moments.pass_by(f"step {step.step}"))
    run_recipe(load_recipe(str(recipe)), SEED, folder, CPU, keeping=keeping, resume=resume)
    return 0


def struck_at(*numbers: int) -> Callable[[int, str], None]:
    def strike(number: int, what: str) -> None:
        if number in numbers:
            os.kill(os.getpid(), signal.SIGKILL)

    return strike


def everything(folder: Path) -> dict[str, Any]:
    """What the run came to, and the moments with which it ended."""
    copy = folder.with_name(f"{folder.name} moments")
    progress = json.loads((copy / "progress.json").read_text())
    del progress["elapsed_s"]
    tensors = {name: (copy / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}
    return {**outcome(folder), "progress": progress, **tensors}


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed."""

    recipe: Path
    came_to: dict[str, Any]
    moments: list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    place = tmp_path_factory.mktemp("chaos")
    recipe = place / "my recipe.toml"
    recipe.write_text(RECIPE)
    noted = place / "moments"

    def work() -> int:
        with noted.open("w") as file:
            return train(recipe, place / "whole", False, lambda number, what: print(what, file=file))

    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        run_recipe(load_recipe(str(recipe), {"training": {"steps": 1}}), SEED, place / "warm-up", CPU)  # what is imported late
        assert child(work) == 0
    return Whole(recipe, everything(place / "whole"), noted.read_text().splitlines())


def without_pictures(patch: pytest.MonkeyPatch) -> None:
    def save(figure: object, path: Path) -> list[Path]:
        written = [path.with_suffix(kind) for kind in (".svg", ".png")]
        for each in written:
            each.write_bytes(b"")
        return written

    patch.setattr("looplm.evaluate.figures.save_figure", save)
    patch.setattr("looplm.evaluate.figures.accuracy_figure", lambda *arguments: None)
    patch.setattr("looplm.evaluate.figures.trace_figure", lambda *arguments: None)


def drawn_moments(moments: list[str]) -> dict[int, str]:
    """One moment of each kind, drawn; numbers from 1."""
    begins = moments.index("step 1")
    kinds: dict[str, Callable[[int, str], bool]] = {
        "claiming the folder": lambda i, what: i < begins and what.startswith(("mkdir", "open")),
        "half of the recipe": lambda i, what: i < begins and "half" in what and "config.toml" in what,
        "half of the note": lambda i, what: i < begins and "half" in what and "run.json" in what,
        "before the note": lambda i, what: i < begins and what.startswith("rename") and "run.json" in what,
        "after a step": lambda i, what: what.startswith("step") and what != "step 40",
        "after the last step": lambda i, what: what == "step 40",
        "beginning a checkpoint": lambda i, what: what.startswith("mkdir") and "step-" in what,
        "half of a checkpoint's file": lambda i, what: "half" in what and "step-" in what,
        "half of a checkpoint's manifest": lambda i, what: "half" in what and "manifest" in what and "step-" in what,
        "a checkpoint appears": lambda i, what: (
            what.startswith("rename") and what.endswith(".draft") and what.count("step-") == 1
        ),
        "an old checkpoint goes": lambda i, what: what.startswith("remove") and "/step-" in what,
        "half of the final weights": lambda i, what: "half" in what and "/checkpoint/" in what,
        "weights that are not noted": lambda i, what: "half" in what and "metrics.csv" in what,
        "half of the cells": lambda i, what: "half" in what and "cells.jsonl" in what,
        "half of the summary": lambda i, what: "half" in what and "summary.json" in what,
        "half of the report": lambda i, what: "half" in what and "report.md" in what,
        "all is done but the mark": lambda i, what: i == max(j for j, each in enumerate(moments) if "run.json" in each),
    }
    draw, chosen = random.Random(0), {}
    for kind, belongs in kinds.items():
        of_kind = [i for i, what in enumerate(moments) if belongs(i, what)]
        assert of_kind, kind
        chosen[draw.choice(of_kind) + 1] = kind
    return chosen


@pytest.mark.spec("training.resume", "training.nothing-half-written")
@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(whole: Whole, tmp_path: Path) -> None:
    rows = []
    for number, kind in drawn_moments(whole.moments).items():
        place = tmp_path / f"run {number}"
        began = time.monotonic()
        assert child(partial(train, whole.recipe, place, False, struck_at(number))) == -signal.SIGKILL
        state = state_of(place)["state"] if (place / "run.json").exists() else "cut off as it began"
        # a folder that was not even made is no run: the same command begins it
        assert child(partial(train, whole.recipe, place, place.exists())) == 0
        came_to = everything(place)
        same = [name for name, value in came_to.items() if value != whole.came_to[name]] or "the same"
        rows.append((number, kind, whole.moments[number - 1], state, same, time.monotonic() - began))
        left = [path for path in place.rglob(".*") if path.name != ".lock"]
        assert left == [], "nothing is left over unexplained"
    print(f"\n{len(whole.moments)} moments; killed at:")
    for number, kind, what, state, same, seconds in rows:
        print(f"{number:5} {kind:32} {what:62} {state:44} {same} ({seconds:.1f} s)")
    assert all(row[4] == "the same" for row in rows)


@pytest.mark.spec("training.resume")
@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(whole: Whole, tmp_path: Path) -> None:
    place, draw, codes = tmp_path / "run", random.Random(1), []
    for _ in range(40):
        moment = draw.randrange(1, 160)
        codes.append(child(partial(train, whole.recipe, place, place.exists(), struck_at(moment))))
        if codes[-1] == 0:
            break
    assert codes.count(-signal.SIGKILL) >= 3
    assert codes[-1] == 0
    assert everything(place) == whole.came_to


def told(recipe: Path, folder: Path, *signals: int, at: str, ignored: int | None = None) -> Callable[[], int]:
    """The command line in a child, which signals itself at a moment."""

    def strike(number: int, what: str) -> None:
        if at in what:
            for signum in signals:
                os.kill(os.getpid(), signum)

    def work() -> int:
        if ignored:
            signal.signal(ignored, signal.SIG_IGN)
        kept_apart(folder)
        Moments(folder, strike).watch()
        words = ["train", str(recipe), "--out", str(folder), "--seed", str(SEED), "--checkpoint-every", str(EVERY)]
        return main(words)

    return work


def pasted(message: str) -> list[str]:
    words = shlex.split(message.partition("To go on: ")[2])
    assert words[:3] == [sys.executable, "-m", "looplm"]
    return words[3:]


@pytest.mark.spec("training.resume")
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("at", ["half of run/checkpoints/.step-000000012", "half of run/.cells.jsonl"])
def test_a_run_that_is_told_to_stop_says_how_to_go_on_and_that_goes_on(
    name: str, at: str, whole: Whole, tmp_path: Path
) -> None:
    place, errors, signum = tmp_path / "my  run's" / "run", tmp_path / "errors", signal.Signals[name]
    assert child(told(whole.recipe, place, signum, at=at), errors) == 128 + signum
    heard, *lines = [line for line in errors.read_text().splitlines() if line.startswith("looplm: ")]
    assert heard == "looplm: stopping as soon as what is being done is whole; once more, and it stops at once."
    assert len(lines) == 1
    what = "step 12 of 40 is kept" if "step" in at else "the test sets that were tested are kept"
    assert lines[0].startswith(f"looplm: stopped; {what} in {place}. To go on: ")
    assert "Traceback" not in errors.read_text()
    assert (
        state_of(place)["state"]
        == ("stopped at step 12 of 40" if "step" in at else "stopped after train") + "; --resume goes on"
    )

    def go_on() -> int:
        kept_apart(place)
        return main(pasted(lines[0]))

    assert child(go_on, tmp_path / "again") == 0
    assert everything(place) == whole.came_to


@pytest.mark.usefixtures("no_pictures")
def test_a_second_signal_stops_at_once(whole: Whole, tmp_path: Path) -> None:
    place, errors = tmp_path / "run", tmp_path / "errors"
    code = child(told(whole.recipe, place, signal.SIGINT, signal.SIGTERM, at="mkdir run/checkpoints/.step-000000012"), errors)
    assert code == 128 + signal.SIGTERM
    last = errors.read_text().splitlines()[-1]
    assert last.startswith("looplm: stopped at once. To go on: ")
    assert not (place / "checkpoints" / "step-000000012").exists()

    def go_on() -> int:
        kept_apart(place)
        return main(pasted(last))

    assert child(go_on, tmp_path / "again") == 0
    assert everything(place) == whole.came_to


@pytest.mark.usefixtures("no_pictures")
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(whole: Whole, tmp_path: Path) -> None:
    place, errors = tmp_path / "run", tmp_path / "errors"
    at = "half of run/checkpoints/.step-000000012"
    assert child(told(whole.recipe, place, signal.SIGHUP, at=at, ignored=signal.SIGHUP), errors) == 0, "as under nohup"
    assert everything(place) == whole.came_to


@pytest.mark.usefixtures("no_pictures")
def test_the_command_can_be_pasted_into_a_shell(whole: Whole, tmp_path: Path) -> None:
    place, errors = tmp_path / "my  run's" / "run", tmp_path / "errors"
    assert child(told(whole.recipe, place, signal.SIGTERM, at="half of run/.trace.json"), errors) == 128 + signal.SIGTERM
    command = errors.read_text().splitlines()[-1].partition("To go on: ")[2]
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "The run is in" in done.stdout
    assert outcome(place)["weights"] == whole.came_to["weights"]


IMPORTING = """
import os, sys, signal

def strike(event, arguments):
    if event == "import" and arguments[0] == {module!r}:
        os.kill(os.getpid(), {signum})

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["looplm", "train", "first-light", "--out", {out!r}]
from looplm.cli import entry

sys.addaudithook(strike)
entry()
"""


@pytest.mark.parametrize(
    ("module", "name"), [("tyro", "SIGINT"), ("torch", "SIGTERM"), ("numpy", "SIGINT"), ("pydantic", "SIGHUP")]
)
def test_a_signal_while_modules_are_imported_stops_at_once(module: str, name: str, tmp_path: Path) -> None:
    signum = signal.Signals[name]
    code = IMPORTING.format(module=module, signum=int(signum), out=str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signum, "", "looplm: interrupted.\n")
    assert list(tmp_path.iterdir()) == []
