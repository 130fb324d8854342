"""A run that ended early goes on: what was kept is kept, what is damaged is named, and the end is the same."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_recipe import CPU, SEED, Killed, begun, killed_at, outcome, run, steps_of, tiny

from looplm.errors import InputError
from looplm.files import write_file
from looplm.models.looped import looped
from looplm.runs.checkpoint import load, read_card
from looplm.runs.folder import RunFolder
from looplm.runs.record import read_note, read_steps, state_of
from looplm.runs.results import read_summary
from looplm.runs.run import Broken, Keeping, run_recipe
from looplm.train.execution import Execution
from looplm.train.gate import train_gate
from looplm.train.trainer import Step


@pytest.mark.spec("training.resume", "training.nothing-half-written")
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "file", ["model.safetensors", "progress.json", "cells.jsonl", "summary.json", "trace.json", "run.json"]
)
def test_a_disk_that_fills_up_loses_nothing_that_was_kept(
    file: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Path.write_bytes, []

    def full(self: Path, content: bytes) -> int:
        if self.name.startswith(f".{file}."):
            written.append(self)
            if len(written) > 1 or file not in ("run.json", "model.safetensors", "progress.json"):
                write(self, content[: len(content) // 2])
                raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Broken, match=f"cannot write .*{file}: No space left on device.*What was done before is kept in"):
        run(tmp_path / "run")
    monkeypatch.undo()
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]
    done: list[int] = []
    with pytest.MonkeyPatch.context() as again:
        again.setattr("looplm.evaluate.figures.save_figure", lambda figure, path: [])
        run(tmp_path / "run", resume=True, on_step=lambda step: done.append(step.step))
    assert len(done) < 6
    drop = ("files",)
    assert {k: v for k, v in outcome(tmp_path / "run").items() if k not in drop} == {
        k: v for k, v in outcome(whole).items() if k not in drop
    }


@pytest.mark.spec("training.resume")
def test_the_weights_are_kept_before_anything_is_drawn(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("looplm.evaluate.figures.save_figure", fails)
        with pytest.raises(Broken, match="No space left on device"):
            run(tmp_path / "run")
    one, other = (looped(load(path).model, "this test") for path in (tmp_path / "run", whole))
    assert torch.equal(one.embedding.weight, other.embedding.weight)
    assert read_summary(tmp_path / "run")["results"]
    assert state_of(tmp_path / "run")["state"] == "stopped after trace; --resume goes on"
    run(tmp_path / "run", resume=True, on_step=lambda step: pytest.fail("it has trained again"))
    assert outcome(tmp_path / "run") == outcome(whole)


@pytest.mark.spec("training.resume", "training.nothing-half-written")
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("stage", ["train", "test", "trace", "report", "complete"])
def test_a_run_goes_on_at_every_stage(stage: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, make_stage = tmp_path / "run", RunFolder.stage
    made: list[str] = []

    def cut_off(self: RunFolder, name: str, make: Callable[[], None]) -> None:
        if name == stage:
            make()
            raise Killed  # the stage is done, but not noted

        make_stage(self, name, make)

    def count(self: RunFolder, name: str, make: Callable[[], None]) -> None:
        def noted() -> None:
            made.append(name)
            make()

        make_stage(self, name, noted)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "stage", cut_off)
        with pytest.raises(Killed):
            run(place)
    stages = ["train", "test", "trace", "report", "complete"]
    assert read_note(place)["done"] == stages[: stages.index(stage)]
    assert state_of(place)["state"] != "complete"
    monkeypatch.setattr(RunFolder, "stage", count)
    run(place, resume=True)
    assert made == stages[stages.index(stage) :]
    assert outcome(place) == outcome(whole)


@pytest.mark.spec("training.resume")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"recipe": tiny(training={"steps": 7})}, r"`training\.steps` is 6 there and 7 here"),
        ({"recipe": tiny(task={"max_digits": 3})}, r"`task\.max_digits` is 4 there and 3 here"),
        (
            {"recipe": tiny(halting={"rule": "fixed", "max_loops": 2})},
            r"`halting\.rule` is 'confidence' there and 'fixed'",
        ),
        ({"seed": 6}, "`seed` is 5 there and 6 here"),
    ],
)
def test_another_recipe_or_seed_is_named_and_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    begun(tmp_path / "run", at=1)
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match=f"is another run: .*{says}.*Give the same command"):
        run(tmp_path / "run", **change, resume=True)
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


@pytest.mark.spec("training.resume")
def test_there_is_nothing_to_resume_where_no_run_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "nowhere", resume=True)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match=r"is no run: it has no run\.json"):
        run(tmp_path, resume=True)
    with pytest.raises(InputError, match=r"does not exist|is no run"):
        run(tmp_path / "mine.txt", resume=True)
    (tmp_path / "log.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="was written by an older version of looplm"):
        run(tmp_path, resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "log.jsonl"}


@pytest.mark.spec("training.resume")
@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("run.json", b"", r"run\.json is damaged; the run cannot go on. Start it anew in another folder"),
        ("run.json", b"[]", r"run\.json is damaged"),
        ("run.json", b"\xff", r"run\.json is damaged"),
        ("run.json", b'{"schema": 2, "recipe": "x", "seed": 5, "steps": 6, "done": null}', r"run\.json is damaged"),
        ("run.json", b'{"schema": 1}', r"is a run of schema 1; this version of looplm reads schema 2\. Use the version"),
        ("config.toml", b"= 3", r"config\.toml is damaged"),
        ("config.toml", b"\xff", r"config\.toml is damaged"),
        ("config.toml", None, r"config\.toml is damaged"),
        ("log.jsonl", b"", r"log\.jsonl is damaged: its first line is no header"),
        ("log.jsonl", b"[1]\n", r"log\.jsonl is damaged"),
        ("log.jsonl", b"\xff\xfe\n", r"log\.jsonl is damaged"),
        ("log.jsonl", None, r"log\.jsonl"),
    ],
)
def test_a_run_whose_own_files_are_damaged_is_refused(file: str, content: bytes | None, says: str, tmp_path: Path) -> None:
    begun(tmp_path / "run", at=3)
    (tmp_path / "run" / file).unlink()
    if content is not None:
        (tmp_path / "run" / file).write_bytes(content)
    with pytest.raises(InputError, match=says):
        run(tmp_path / "run", resume=True)
    if file == "run.json":
        assert state_of(tmp_path / "run")["state"].startswith(str(tmp_path / "run"))


def rehash(folder: Path) -> None:
    """Make the manifest say what is there now: damage that no hash can tell."""
    files = sorted(path for path in folder.iterdir() if path.name != "manifest.json")
    hashes = {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in files}
    (folder / "manifest.json").write_text(json.dumps({"format": 2, "files": hashes}))


def retensored(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)
        rehash(folder)

    return damage


def flip(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def progress(text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "progress.json").write_text(text)
        rehash(folder)

    return damage


def without(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        rehash(folder)

    return damage


def no_tensors(folder: Path) -> None:
    (folder / MODEL).write_bytes(b"12345678")
    rehash(folder)


MODEL, MOMENTS = "model.safetensors", "optimizer.safetensors"
DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit is flipped": flip,
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "no weights": without(MODEL),
    "no moments": without(MOMENTS),
    "no progress": without("progress.json"),
    "weights of another shape": retensored(MODEL, lambda t: t.update({"embedding.weight": torch.zeros(3, 3)})),
    "weights that are not finite": retensored(MODEL, lambda t: t["embedding.weight"].fill_(torch.nan)),
    "a weight is missing": retensored(MODEL, lambda t: t.pop("embedding.weight")),
    "a weight too many": retensored(MODEL, lambda t: t.update({"more": torch.zeros(1)})),
    "weights are no tensors": no_tensors,
    "moments of another shape": retensored(MOMENTS, lambda t: t.update({"embedding.weight|exp_avg": torch.zeros(3)})),
    "a moment is missing": retensored(MOMENTS, lambda t: t.pop("embedding.weight|exp_avg_sq")),
    "moments of what is no weight": retensored(MOMENTS, lambda t: t.update({"more|exp_avg": torch.zeros(1)})),
    "all moments are missing": retensored(MOMENTS, lambda t: t.clear()),
    "progress is no table": progress("[]"),
    "progress is nothing": progress("{"),
    "progress of another step": progress('{"steps": 2, "tokens": 9, "elapsed_s": 1.0, "scaler": {}}'),
    "progress without tokens": progress('{"steps": 4, "elapsed_s": 1.0, "scaler": {}}'),
}


@pytest.mark.spec("training.resume", "training.checkpoint")
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(damage: str, whole: Path, tmp_path: Path) -> None:
    place = begun(tmp_path / "run")
    newest, before = place / "checkpoints" / "step-000000004", place / "checkpoints" / "step-000000002"
    assert newest.is_dir()
    assert before.is_dir()
    DAMAGES[damage](newest)
    remarks: list[str] = []
    done: list[int] = []
    run(place, resume=True, on_remark=remarks.append, on_step=lambda step: done.append(step.step))
    assert len(remarks) == 2
    assert remarks[0].startswith("passed over: ")
    assert "step-000000004" in remarks[0]
    assert remarks[1] == "going on from step 2"
    assert done == [3, 4, 5, 6]
    assert outcome(place) == outcome(whole)


@pytest.mark.spec("training.resume")
@pytest.mark.usefixtures("no_pictures")
def test_without_a_whole_checkpoint_training_begins_again_and_says_so(whole: Path, tmp_path: Path) -> None:
    place = begun(tmp_path / "run")
    for folder in (place / "checkpoints").iterdir():
        DAMAGES["a moment is missing"](folder)
    remarks: list[str] = []
    run(place, resume=True, on_remark=remarks.append)
    assert [remark.split(":")[0] for remark in remarks] == ["passed over", "passed over", "no checkpoint is whole"]
    assert outcome(place) == outcome(whole)


@pytest.mark.spec("training.resume", "training.log")
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("damage", ["cut off", "not JSON", "a step is missing"])
def test_training_goes_on_from_before_a_damaged_line_of_the_log(damage: str, whole: Path, tmp_path: Path) -> None:
    place = begun(tmp_path / "run")
    header, *lines = (place / "log.jsonl").read_bytes().splitlines(keepends=True)
    if damage == "cut off":
        lines = [*lines[:2], lines[2][:9]]
    elif damage == "not JSON":
        lines[2] = b"\xff{\n"
    else:
        del lines[2]
    (place / "log.jsonl").write_bytes(header + b"".join(lines))
    remarks: list[str] = []
    run(place, resume=True, on_remark=remarks.append)
    assert "log.jsonl is damaged at step 3, before step-000000004" in remarks[0]
    assert remarks[1] == "going on from step 2"
    assert outcome(place) == outcome(whole)


@pytest.mark.spec("training.resume")
@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_was_cut_off_as_it_began_begins_when_it_is_resumed(whole: Path, tmp_path: Path) -> None:
    place = begun(tmp_path / "run", at=1)
    (place / "run.json").unlink()
    (place / ".config.toml.4711.draft").write_text("half")
    with pytest.raises(InputError, match="was cut off as it began: add --resume"):
        run(place)
    run(place, resume=True)
    assert outcome(place) == outcome(whole)


@pytest.mark.spec("training.sessions")
@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_goes_on_otherwise_says_so(tmp_path: Path) -> None:
    place = begun(tmp_path / "run")
    keeping = Keeping(on_step=killed_at(5))
    with pytest.raises(Killed):
        run_recipe(tiny(), SEED, place, CPU, execution=Execution(dtype="bfloat16"), keeping=keeping, resume=True)
    run(place, resume=True)
    (result,) = read_summary(place)["results"]
    assert result["provenance"]["dtype"] == "float32"
    first, second = result["provenance"]["resumed"]
    assert (first["from_step"], first["dtype"], first["execution"]["dtype"]) == (5, "bfloat16", "bfloat16")
    assert (second["from_step"], second["dtype"]) == (5, "float32")
    assert read_card(place)["provenance"]["resumed"] == [first, second]
    assert "torch" not in first, "what stayed the same is not said again"


@pytest.mark.usefixtures("no_pictures")
def test_a_training_that_diverges_says_so_and_keeps_its_log(tmp_path: Path) -> None:
    def poison(step: Step) -> None:
        if step.step == 3:
            raise FloatingPointError("step 4: the gradient is nan; the step was not taken.")

    with pytest.raises(InputError, match=r"training diverged: step 4: the gradient is nan.*training\.schedule") as caught:
        run(tmp_path / "run", on_step=poison)
    assert not isinstance(caught.value, Broken), "going on would come to the same"
    assert len(steps_of(tmp_path / "run")) == 3


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore."),
            "too little memory: CUDA out of memory. Tri",
        ),
        (MemoryError(), "there is too little memory"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "DataLoader worker (pid 7) is killed by signal: Killed.",
        ),
    ],
)
def test_what_can_be_mended_is_told_apart_from_what_is_wrong(error: Exception, says: str, tmp_path: Path) -> None:
    def fail(step: Step) -> None:
        raise error

    with pytest.raises(Broken, match=re.escape(says)) as caught:
        run(tmp_path / "run", on_step=fail)
    assert "\n" not in str(caught.value)

    def bug(step: Step) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError) as found:
        run(tmp_path / "other", on_step=bug)
    assert found.value.__notes__ == [f"What was done before is kept in {tmp_path / 'other'}."]


GATED: dict[str, Any] = {
    "model": {"gate": True},
    "gate": {"steps": 5, "max_loops": 2},
    "halting": {"rule": "gate", "threshold": 0.5, "max_loops": 3},
}


@pytest.mark.spec("training.resume", "training.gate")
@pytest.mark.usefixtures("no_pictures")
def test_a_gate_that_was_cut_off_is_trained_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(**GATED)
    run(tmp_path / "whole", recipe)

    def cut_off(*arguments: Any) -> Any:
        for number, loss in enumerate(train_gate(*arguments)):
            if number == 2:
                raise Killed
            yield loss

    with monkeypatch.context() as patched:
        patched.setattr("looplm.runs.run.train_gate", cut_off)
        with pytest.raises(Killed):
            run(tmp_path / "run", recipe)
    run(tmp_path / "run", recipe, resume=True, on_step=lambda step: pytest.fail("the model was trained already"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.spec("training.deterministic", "training.gate")
@pytest.mark.usefixtures("no_pictures")
def test_a_gate_for_a_model_that_is_there_follows_from_the_seed(whole: Path, tmp_path: Path) -> None:
    for number in range(2):
        torch.manual_seed(number)
        run_recipe(tiny(**GATED), SEED, tmp_path / str(number), CPU, model_of=whole)
    first, second = outcome(tmp_path / "0"), outcome(tmp_path / "1")
    assert first == second
    assert first["log"] == outcome(whole)["log"]


def test_cells_that_cannot_be_read_are_measured_again(whole: Path, tmp_path: Path) -> None:
    from looplm.runs.run import _read_cells

    for content in (b"", b"[]\n", b"\xff\n", b'{"set": "uniform"}\n'):
        write_file(tmp_path / "cells.jsonl", content)
        assert _read_cells(tmp_path / "cells.jsonl") == []


def test_steps_of_a_damaged_log_are_not_made_up(whole: Path, tmp_path: Path) -> None:
    lines = (whole / "log.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "log.jsonl").write_bytes(b"".join([*lines[:3], b"?\n", *lines[4:]]))
    with pytest.raises(InputError, match=r"log\.jsonl is damaged: its line 4 is not that of step 3"):
        read_steps(tmp_path)
