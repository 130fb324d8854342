"""A run that is struck at any moment goes on, and comes to what the undisturbed run comes to, bit for bit."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import struck
from struck import EVERY, SEED
from tiny_recipe import outcome

from looplm.runs.record import state_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked children")

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


@dataclass(frozen=True)
class Children:
    """Runs in children of a process of its own (struck.py)."""

    server: "subprocess.Popen[str]"

    def run(self, do: str, **request: Any) -> int:
        """The exit code; negative, if a signal ended the child."""
        wanted, given = self._pipes
        print(json.dumps({"do": do, **{name: _plain(value) for name, value in request.items()}}), file=wanted, flush=True)
        code = json.loads(given.readline())
        assert isinstance(code, int)
        return code

    @property
    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        return self.server.stdin, self.server.stdout


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    command = [sys.executable, struck.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Children(server)
        assert server.stdin is not None
        server.stdin.close()


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

    def differs_from(self, folder: Path) -> list[str]:
        """Names of what another run came to otherwise."""
        return [name for name, value in everything(folder).items() if value != self.came_to[name]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, children: Children) -> Whole:
    place = tmp_path_factory.mktemp("chaos")
    recipe = place / "my recipe.toml"
    recipe.write_text(RECIPE)
    assert children.run("train", recipe=recipe, folder=place / "whole", note=place / "moments") == 0
    return Whole(recipe, everything(place / "whole"), (place / "moments").read_text().splitlines())


def drawn_moments(moments: list[str]) -> dict[int, str]:
    """One moment of each kind, drawn; numbers from 1."""
    begins = moments.index("step 1")
    kinds: dict[str, Callable[[int, str], bool]] = {
        "claiming the folder": lambda i, what: i < begins and what.startswith(("mkdir", "open .lock")),
        "half of the recipe": lambda i, what: i < begins and what.startswith("half of .config.toml"),
        "before the note": lambda i, what: i < begins and what.startswith("rename .run.json"),
        "after a step": lambda i, what: what.startswith("step ") and what != "step 40",
        "after the last step": lambda i, what: what == "step 40",
        "beginning a checkpoint": lambda i, what: what.startswith("mkdir checkpoints/.step"),
        "half of a checkpoint's file": lambda i, what: what.startswith("half of checkpoints/.step"),
        "half of a checkpoint's manifest": lambda i, what: what.startswith("half of checkpoints/.step") and "manifest" in what,
        "before a checkpoint appears": lambda i, what: what.startswith("rename checkpoints/.step") and what.count("/") == 1,
        "an old checkpoint goes": lambda i, what: what.startswith("remove checkpoints/step"),
        "half of the final weights": lambda i, what: what.startswith("half of checkpoint/.model.safetensors"),
        "weights that are not noted": lambda i, what: what.startswith("half of .metrics.csv"),
        "half of the cells": lambda i, what: what.startswith("half of .cells.jsonl"),
        "half of the summary": lambda i, what: what.startswith("half of .summary.json"),
        "half of the report": lambda i, what: what.startswith("half of .report.md"),
        "all is done but the mark": lambda i, what: i > moments.index("rename .report.md.PID.draft") and "half" in what,
    }
    draw, chosen = random.Random(0), {}
    for kind, belongs in kinds.items():
        of_kind = [i for i, what in enumerate(moments) if belongs(i, what)]
        assert of_kind, kind
        chosen[draw.choice(of_kind) + 1] = kind
    return chosen


@pytest.mark.spec("training.resume", "training.nothing-half-written")
def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(
    whole: Whole, children: Children, tmp_path: Path
) -> None:
    rows = []
    for number, kind in drawn_moments(whole.moments).items():
        place = tmp_path / f"run {number}"
        began = time.monotonic()
        assert children.run("train", recipe=whole.recipe, folder=place, numbers=[number]) == -signal.SIGKILL
        state = state_of(place)["state"] if (place / "run.json").exists() else "cut off as it began"
        # a folder that was not even made is no run: the same command begins it
        assert children.run("train", recipe=whole.recipe, folder=place, resume=place.exists()) == 0
        result = ", ".join(whole.differs_from(place)) or "the same"
        rows.append((number, kind, whole.moments[number - 1], state.removesuffix("; --resume goes on"), result))
        rows[-1] += (f"{time.monotonic() - began:.1f} s",)
    print(f"\n{len(whole.moments)} moments; killed at, found as, resumed to:")
    for row in rows:
        print("{:5}  {:32} {:70} {:28} {:10} {}".format(*row))
    assert {row[4] for row in rows} == {"the same"}


@pytest.mark.spec("training.resume")
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    whole: Whole, children: Children, tmp_path: Path
) -> None:
    place, draw, codes = tmp_path / "run", random.Random(1), [1]
    while codes[-1] != 0 and len(codes) < 40:
        numbers = [draw.randrange(1, 250)]
        codes.append(children.run("train", recipe=whole.recipe, folder=place, resume=place.exists(), numbers=numbers))
    assert codes.count(-signal.SIGKILL) >= 3
    assert codes[-1] == 0
    assert whole.differs_from(place) == []


def told_to_stop(
    whole: Whole, children: Children, folder: Path, *signals: int, text: str, **more: Any
) -> tuple[int, list[str]]:
    """The exit code of `looplm train` that gets signals at a moment, and its lines on standard error."""
    words = ["train", str(whole.recipe), "--out", str(folder), "--seed", str(SEED), "--checkpoint-every", str(EVERY)]
    errors = folder.with_name("errors")
    errors.parent.mkdir(parents=True, exist_ok=True)
    code = children.run("command", words=words, folder=folder, errors=errors, text=text, signals=signals, **more)
    lines = errors.read_text().splitlines()
    assert not any("Traceback" in line for line in lines)
    return code, [line for line in lines if line.startswith("looplm: ")]


def goes_on(line: str, whole: Whole, children: Children, folder: Path) -> bool:
    """Whether the command of the message completes the run, to what the undisturbed one came to."""
    program, *words = shlex.split(line.partition("To go on: ")[2])
    assert (program, words[:2]) == (sys.executable, ["-m", "looplm"])
    code = children.run("command", words=words[2:], folder=folder, errors=folder.with_name("errors again"))
    return code == 0 and whole.differs_from(folder) == []


@pytest.mark.spec("training.resume")
@pytest.mark.parametrize(
    ("name", "text", "kept", "state"),
    [
        ("SIGINT", "half of checkpoints/.step-000000012", "step 12 of 40 is kept", "stopped at step 12 of 40"),
        ("SIGTERM", "half of .cells.jsonl", "the test sets that were tested are kept", "stopped after train"),
        ("SIGHUP", "half of .summary.json", "the stages that are done are kept", "stopped after test"),
    ],
)
def test_a_run_that_is_told_to_stop_says_how_to_go_on_and_that_goes_on(
    name: str, text: str, kept: str, state: str, whole: Whole, children: Children, tmp_path: Path
) -> None:
    place, signum = tmp_path / "my  run's" / "run", signal.Signals[name]
    code, (heard, line) = told_to_stop(whole, children, place, signum, text=text)
    assert code == 128 + signum
    assert heard == "looplm: stopping as soon as what is being done is whole; once more, and it stops at once."
    assert line.startswith(f"looplm: stopped; {kept} in {place}. To go on: ")
    assert state_of(place)["state"] == f"{state}; --resume goes on"
    assert goes_on(line, whole, children, place)


def test_a_second_signal_stops_at_once(whole: Whole, children: Children, tmp_path: Path) -> None:
    place, text = tmp_path / "run", "mkdir checkpoints/.step-000000012"
    code, (_, line) = told_to_stop(whole, children, place, signal.SIGINT, signal.SIGTERM, text=text)
    assert code == 128 + signal.SIGTERM
    assert line.startswith("looplm: stopped at once. To go on: ")
    assert not (place / "checkpoints" / "step-000000012").exists()
    assert goes_on(line, whole, children, place)


def test_a_signal_that_was_ignored_from_the_start_stays_ignored(whole: Whole, children: Children, tmp_path: Path) -> None:
    place, text = tmp_path / "run", "half of checkpoints/.step-000000012"
    assert told_to_stop(whole, children, place, signal.SIGHUP, text=text, ignored=int(signal.SIGHUP)) == (0, []), (
        "as under nohup"
    )
    assert whole.differs_from(place) == []


def test_the_command_can_be_pasted_into_a_shell(whole: Whole, children: Children, tmp_path: Path) -> None:
    place = tmp_path / "my  run's" / "run"
    code, (_, line) = told_to_stop(whole, children, place, signal.SIGTERM, text="half of .trace.json")
    assert code == 128 + signal.SIGTERM
    command = line.partition("To go on: ")[2]
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


@pytest.mark.parametrize(("module", "name"), [("tyro", "SIGINT"), ("torch", "SIGTERM"), ("pydantic", "SIGHUP")])
def test_a_signal_while_modules_are_imported_stops_at_once(module: str, name: str, tmp_path: Path) -> None:
    signum = signal.Signals[name]
    code = IMPORTING.format(module=module, signum=int(signum), out=str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signum, "", "looplm: interrupted.\n")
    assert list(tmp_path.iterdir()) == []
