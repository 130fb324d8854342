"""Trackers keep a run's numbers on this machine, go on where a run goes on, and never stop a training."""

import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from looplm.errors import InputError
from looplm.runs.trackers import TRACKERS, find_tracker, open_tracker
from looplm.runs.trackers import _process as process
from looplm.runs.trackers.wandb import Wandb

Kept = Mapping[str, dict[int, float]]
"""Values by step, of each of a tracker's runs by its id."""
FIRST, SECOND = {1: 0.5, 2: 0.25, 3: 0.125, 4: 9.0}, {4: 0.0625, 5: 0.03125}
"""A training that died at step 4, after it had saved step 3, and the rest of it; float32 holds these exactly."""


def read_tensorboard(folder: Path) -> Kept:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert events.Tags()["tensors"] == ["adder/text_summary"]
    steps = [event.step for event in events.Scalars("loss")]
    assert len(steps) == len(set(steps)), "a step is shown once"
    return {"": {event.step: event.value for event in events.Scalars("loss")}}


def read_trackio(folder: Path) -> Kept:
    kept: dict[str, dict[int, float]] = {}
    with sqlite3.connect(folder / "looplm.db") as connection:
        rows = connection.execute("SELECT run_id, step, json_extract(metrics, '$.loss') FROM metrics WHERE run_name = 'adder'")
        for run, step, loss in rows:
            assert step not in kept.setdefault(run, {}), "a step is shown once"
            kept[run][step] = loss
        assert connection.execute("SELECT json_extract(config, '$.model.width') FROM configs").fetchone() == (64,)
    connection.close()
    return kept


def read_wandb(folder: Path) -> Kept:
    kept: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in wandb_records(path.read_bytes()):
            if record.run.run_id:
                run = kept.setdefault(record.run.run_id, {})
                assert record.run.display_name == "adder"
            items = {item.key or item.nested_key[0]: float(item.value_json) for item in record.history.item}
            if items:
                run[int(items["_step"])] = items["loss"]
    return kept


def wandb_records(file: bytes) -> list[Any]:
    """The records of an offline run: 7 bytes, then the log of LevelDB, whose blocks of 32 KiB matter in longer files only."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert file.startswith(b":W&B") and len(file) < 2**15
    records, at = [], 7
    while at < len(file):
        _, length, kind = struct.unpack("<IHB", file[at : at + 7])
        assert kind == 1, "a whole record"
        records.append(Record.FromString(file[at + 7 : at + 7 + length]))
        at += 7 + length
    return records


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], bool]]:
    """Whether anybody wanted the network: all is told to go by a proxy here, and there are names and keys of servers."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.lower(), address)
        for name in ("NO_PROXY", "no_proxy", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"HF_TOKEN": "hf_none", "WANDB_API_KEY": "0" * 40, "TRACKIO_SERVER_URL": address}.items():
            monkeypatch.setenv(name, value)

        def connected() -> bool:
            try:
                proxy.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield connected


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


READ = {"tensorboard": read_tensorboard, "trackio": read_trackio, "wandb": read_wandb}


def test_every_tracker_is_tested_here() -> None:
    assert TRACKERS.names() == sorted(READ)


@pytest.mark.parametrize("name", sorted(READ))
def test_a_tracker_keeps_what_it_is_told_and_goes_on(
    name: str, tmp_path: Path, home: Path, sent: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text("raise ImportError('not the package')")
    messages: list[str] = []
    for steps in (FIRST, SECOND):
        tracker = open_tracker(
            name, "adder", {"model": {"width": 64}}, Path("run"), first_step=min(steps), on_message=messages.append
        )
        with tracker:
            for step, loss in steps.items():
                tracker.log(step, {"loss": loss, "lr": 1e-3})
    assert messages == []
    folder = tmp_path / "run/trackers" / name
    kept = READ[name](folder)
    (steps_kept,) = kept.values()
    assert steps_kept == {**FIRST, **SECOND}
    assert str(folder) in tracker.view
    assert not sent(), "nothing is sent anywhere"
    assert not list(home.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "run", f"{name}.py"]


BROKEN = """
import atexit, os, sys, time
from pathlib import Path
from looplm.runs.trackers import Tracker

class Broken(Tracker):
    package, view = "json", "cat {folder}/kept.txt"

    def __init__(self, run_name, config, folder, first_step):
        self.kept = (folder / "kept.txt").open("a")
        print("I print")
        atexit.register(print, "I print to the last")
        assert sys.stdin.read() == "", "the lines are not for the tool"
        START

    def log(self, step, values):
        self.kept.write(f"{step} {values}\\n")
        LOG

    def finish(self):
        FINISH
        self.kept.close()
"""


def broken(folder: Path, monkeypatch: pytest.MonkeyPatch, **code: str) -> str:
    """The name of a tracker outside the package that runs this code when it starts, logs or finishes."""
    text = BROKEN
    for place in ("start", "log", "finish"):
        text = text.replace(place.upper(), indent(code.get(place, "pass"), " " * 8).strip())
    module = f"tracker_{'_'.join(code) or 'sound'}_{abs(hash(tuple(code.values())))}"
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return f"{module}:Broken"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ({"start": "raise OSError('no room')"}, "OSError: no room"),
        ({"log": "if step == 2: raise RuntimeError('what now')"}, "RuntimeError: what now"),
        ({"log": "if step == 2: os._exit(7)"}, "its process ended with code 7"),
    ],
    ids=["start", "log", "exit"],
)
def test_a_failing_tracker_is_switched_off_and_says_so_once(
    code: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    name = broken(tmp_path, monkeypatch, **code)
    with open_tracker(name, "adder", {}, tmp_path / "run", on_message=messages.append) as tracker:
        deadline = time.monotonic() + 30
        for step in count(1):
            tracker.log(step, {"loss": 1.0})
            if messages or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        for later in range(step, step + 1000):
            tracker.log(later, {"loss": 1.0})
    (message,) = messages
    output = tmp_path / "run/trackers" / name.replace(":", ".") / "output.txt"
    assert message == (f"the tracker {name} is switched off; the training goes on without it: {reason} (see {output}).")
    assert output.read_text().startswith("I print\n") or "start" in code


@pytest.mark.parametrize(
    ("finish", "seconds", "reason"),
    [("raise OSError('no room')", 60, "OSError: no room"), ("time.sleep(60)", 1, "it was not done after 1 seconds")],
    ids=["fails", "hangs"],
)
def test_a_tracker_that_fails_or_hangs_at_the_end_says_so(
    finish: str, seconds: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "FINISH_SECONDS", seconds)
    messages: list[str] = []
    name = broken(tmp_path, monkeypatch, finish=finish)
    tracker = open_tracker(name, "adder", {}, tmp_path / "run", on_message=messages.append)
    tracker.log(1, {"loss": 1.0})
    tracker.finish()
    tracker.finish()
    (message,) = messages
    assert f"is switched off; not all was kept: {reason} (see " in message


def test_trackio_that_only_warns_of_its_failure_is_switched_off(tmp_path: Path) -> None:
    (tmp_path / "run/trackers/trackio/looplm.db").mkdir(parents=True)
    messages: list[str] = []
    with open_tracker("trackio", "adder", {}, tmp_path / "run", on_message=messages.append) as tracker:
        tracker.log(1, {"loss": 1.0})
    (message,) = messages
    assert "trackio" in message and "unable to open database file" in message


def test_the_training_never_waits_for_a_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = broken(tmp_path, monkeypatch, start="time.sleep(1)")
    tracker = open_tracker(name, "adder", {}, tmp_path / "run")
    start = time.monotonic()
    for step in range(1, 5001):  # more than a pipe holds
        tracker.log(step, {"loss": 0.5})
    assert time.monotonic() - start < 1
    tracker.finish()
    kept = (tmp_path / "run/trackers" / name.replace(":", ".") / "kept.txt").read_text().splitlines()
    assert kept == [f"{step} {{'loss': 0.5}}" for step in range(1, 5001)]


def test_what_a_killed_training_has_handed_over_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the training is killed its lines end without an empty table, perhaps within a line."""
    name = broken(tmp_path, monkeypatch, finish="self.kept.write('finished')")
    start = {"run_name": "adder", "config": {}, "folder": str(tmp_path), "first_step": 1}
    lines = "\n".join(json.dumps(line) for line in (start, {"step": 1, "values": {"loss": 0.5}}))
    lines += '\n{"step": 2, "va'
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "looplm.runs.trackers", name]
    subprocess.run(command, input=lines, text=True, env=environment, check=True)
    assert (tmp_path / "kept.txt").read_text() == "1 {'loss': 0.5}\nfinished"


def test_what_json_does_not_know_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    name = broken(tmp_path, monkeypatch)
    config = {"path": Path("a/b")}
    with open_tracker(name, "adder", config, tmp_path / "run", on_message=messages.append) as tracker:
        tracker.log(1, {"nan": float("nan"), "inf": float("inf"), "ascii": 1})
    assert messages == []
    kept = tmp_path / "run/trackers" / name.replace(":", ".") / "kept.txt"
    assert kept.read_text() == "1 {'nan': nan, 'inf': inf, 'ascii': 1.0}\n"


def test_a_tracker_that_cannot_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no tracker 'wandbb'; did you mean wandb"):
        open_tracker("wandbb", "adder", {}, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        open_tracker("wandb", "adder", {}, tmp_path / "file")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "folder_that_is_no_package").mkdir()
    for package in ("package_that_is_not_here", "folder_that_is_no_package"):
        monkeypatch.setattr(Wandb, "package", package)
        with pytest.raises(InputError, match=r'pip install "looplm\[trackers\]"'):
            find_tracker("wandb")
        with pytest.raises(InputError, match="which is not installed"):
            open_tracker("wandb", "adder", {}, tmp_path)
    assert not (tmp_path / "trackers").exists()
