"""What a run leaves behind, and when it refuses to begin."""

import csv
import json
import math
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import CPU, SEED, Killed, killed_at, outcome, run, steps_of, tiny

from looplm.errors import InputError
from looplm.files import new_folder, write_file
from looplm.runs.checkpoint import load
from looplm.runs.folder import default_folder
from looplm.runs.lock import locked, release
from looplm.runs.record import SCHEMA, read_note, read_steps, state_of
from looplm.runs.results import make_summary, read_summary
from looplm.runs.run import Keeping, run_recipe
from looplm.train.execution import Execution
from looplm.train.recipe import parse_recipe
from looplm.train.trainer import Step, Trainer


@pytest.mark.spec("training.log")
def test_a_run_explains_itself(whole: Path) -> None:
    recipe = tiny()
    names = {".lock", "run.json", "config.toml", "log.jsonl", "metrics.csv", "summary.json", "trace.json", "report.md"}
    figures = {f"{figure}.{kind}" for figure in ("accuracy", "trace") for kind in ("svg", "png")}
    assert {path.name for path in whole.iterdir()} == names | figures | {"checkpoint"}
    header, *lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert {"schema", "preset", "seed", "device", "commit", "clauses"} <= set(header)
    assert (header["schema"], header["preset"], header["seed"]) == (SCHEMA, "first-light", SEED)
    assert {citation.split("@")[0] for citation in header["clauses"]} >= set(recipe.clauses())
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    rows = list(csv.DictReader((whole / "metrics.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == [line["loss"] for line in lines]
    assert parse_recipe(tomllib.loads((whole / "config.toml").read_text()), where="test") == recipe
    (result,) = read_summary(whole)["results"]
    assert read_summary(whole) == make_summary([result])
    assert result["training"]["steps"] == 6
    assert "resumed" not in result["provenance"]
    cells = [(cell["set"], cell["size"], cell["n"]) for cell in result["cells"]]
    assert cells == [(kind, size, 4) for kind in ("uniform", "carry-heavy", "nines") for size in (2, 3)]
    assert load(whole).recipe == recipe
    report = (whole / "report.md").read_text()
    assert f"{result['parameters']:,} parameters" in report
    assert header["clauses"][0] in report
    assert read_note(whole)["done"] == ["train", "test", "trace", "report", "complete"]
    assert state_of(whole)["state"] == "complete"


@pytest.mark.spec("training.log", "training.claimed")
@pytest.mark.usefixtures("no_pictures")
def test_folder_log_and_recipe_are_there_before_step_one_and_a_line_after_each(tmp_path: Path) -> None:
    lines: list[int] = []
    claimed: list[str] = []

    def look(step: Step) -> None:
        lines.append(len((tmp_path / "run" / "log.jsonl").read_text().splitlines()))
        claimed.extend(path.name for path in (tmp_path / "run").iterdir())
        assert state_of(tmp_path / "run")["state"] == f"being worked in, step {step.step} of 6"

    run(tmp_path / "run", on_step=look)
    assert lines == [2, 3, 4, 5, 6, 7]
    assert {"run.json", "config.toml", "log.jsonl"} <= set(claimed[:4])


@pytest.mark.spec("training.log")
@pytest.mark.usefixtures("no_pictures")
def test_a_line_of_the_log_is_json_also_where_float16_overflowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def overflowing(self: Trainer) -> Step:
        made = step(self)
        return replace(made, grad_norm=math.inf) if made.step == 2 else made

    monkeypatch.setattr(Trainer, "step", overflowing)
    run(tmp_path / "run")
    second = (tmp_path / "run" / "log.jsonl").read_text().splitlines()[2]

    def no_json(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(second, parse_constant=no_json)["grad_norm"] is None
    assert read_steps(tmp_path / "run")[1].grad_norm is None


@pytest.mark.spec("training.claimed")
@pytest.mark.parametrize("what", ["a folder", "an empty folder", "a file", "a link to a folder", "a dangling link"])
def test_a_run_never_writes_into_what_is_there(what: str, tmp_path: Path) -> None:
    place = tmp_path / "run"
    if what.endswith("link"):
        place.symlink_to(tmp_path / "nowhere")
    elif "link" in what:
        (tmp_path / "else").mkdir()
        place.symlink_to(tmp_path / "else")
    elif "folder" in what:
        place.mkdir()
        if what == "a folder":
            (place / "mine.txt").write_text("keep")
    else:
        place.write_text("keep")
    before = sorted(tmp_path.rglob("*"))
    says = "link that leads nowhere" if "dangling" in what else "already exists; nothing is overwritten"
    with pytest.raises(InputError, match=says):
        run(place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.spec("training.claimed")
def test_a_second_run_at_one_place_is_refused_at_once(tmp_path: Path) -> None:
    def meanwhile(step: Step) -> None:
        for resume in (False, True):
            with pytest.raises(InputError, match="another process works in"):
                run(tmp_path / "run", resume=resume)
        raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "run", on_step=meanwhile)
    assert len(steps_of(tmp_path / "run")) == 1
    with pytest.raises(InputError, match="holds a run already: add --resume to go on with it"):
        run(tmp_path / "run")


@pytest.mark.spec("training.claimed")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
def test_a_worker_that_outlives_its_parent_keeps_no_lock(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    lock = locked(tmp_path)
    worker = os.fork()
    if worker == 0:
        os.close(theirs)
        os.read(ours, 1)  # until the parent closes its end
        os._exit(0)
    release(lock)  # closes it, as the end of the parent would
    try:
        release(locked(tmp_path))
    finally:
        os.close(theirs)
        os.waitpid(worker, 0)


@pytest.mark.spec("training.resume")
@pytest.mark.usefixtures("no_pictures")
def test_batches_that_workers_draw_are_the_same_before_and_after(whole: Path, tmp_path: Path) -> None:
    execution = Execution(workers=1)
    with pytest.raises(Killed):
        run_recipe(tiny(), SEED, tmp_path / "run", CPU, execution=execution, keeping=Keeping(on_step=killed_at(4)))
    run_recipe(tiny(), SEED, tmp_path / "run", CPU, execution=execution, resume=True)
    assert outcome(tmp_path / "run")["weights"] == outcome(whole)["weights"]
    assert steps_of(tmp_path / "run") == steps_of(whole)


def test_a_complete_run_is_not_run_again(whole: Path) -> None:
    with pytest.raises(InputError, match="it is complete; give another folder"):
        run(whole)
    before = outcome(whole)

    def never(step: Step) -> None:
        raise AssertionError("nothing is left to do")

    assert run(whole, resume=True, on_step=never)["seed"] == SEED
    assert outcome(whole) == before


def test_two_runs_of_one_second_without_a_place_have_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = []
    for _ in range(3):
        places.append(default_folder("first-light"))
        places[-1].mkdir(parents=True)
    assert len(set(places)) == 3
    assert all(place.parent == Path("runs/first-light") for place in places)


@pytest.mark.spec("training.claimed")
def test_a_place_that_cannot_be_written_to_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot make the folder .*file"):
        run(tmp_path / "file" / "run")

    def read_only(self: Path, *arguments: Any, **settings: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(InputError, match=r"cannot make the folder .*: Read-only file system\. Give another place"):
        run(tmp_path / "run")


@pytest.mark.spec("training.nothing-half-written", "training.claimed")
def test_a_disk_that_is_full_at_the_start_is_found_out_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        run(tmp_path / "run", on_step=lambda step: pytest.fail("it has trained"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    def make() -> None:
        with new_folder(tmp_path / "x") as draft:
            (draft / "new.txt").write_text("new")
            (tmp_path / "x").mkdir()

    with pytest.raises(InputError, match="already exists"):
        make()
    assert [path.name for path in tmp_path.rglob("*")] == ["x"]


@pytest.mark.spec("training.nothing-half-written")
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "a", b"old")

    def half(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(InputError, match="Nothing was written"):
        write_file(tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
    assert os.listdir(tmp_path) == ["a"]
