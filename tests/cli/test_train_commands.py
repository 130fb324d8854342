"""`looplm train` and `looplm runs` as a user meets them."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_recipe import begun, outcome, run, tiny

from looplm.cli import main
from looplm.errors import InputError
from looplm.runs.record import SCHEMA, state_of
from looplm.train.recipe import load_recipe

Captured = pytest.CaptureFixture[str]
MINE = """
extends = "first-light"
[model]
width = 8
heads = 2
mlp_width = 16
[training]
steps = 4
batch_size = 4
[evaluation]
sizes = [2]
problems_per_cell = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> Path:
    """A folder of one's own with a recipe of one's own, as the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my recipe.toml").write_text(MINE)
    return tmp_path


def refused(capsys: Captured, *arguments: str) -> str:
    """Run, check that it was refused in one line with nothing made, and give that line."""
    before = sorted(Path().rglob("*"))
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return err


def test_a_recipe_of_ones_own_is_trained_by_its_path(here: Path, capsys: Captured) -> None:
    words = ["train", "my recipe.toml", "--set", "training.batch_size=3", "--set", "title=of my own", "--steps", "3"]
    assert main(words) == 0
    (folder,) = (here / "runs" / "my recipe").iterdir()
    out, err = capsys.readouterr()
    assert "training my recipe: step 3 of 3" in err
    assert "of my own" in out
    shown = f"'{folder.relative_to(here)}'"
    assert f"looplm trace 68915+62898 --model {shown}" in out.replace("\n", " ")
    config = (folder / "config.toml").read_text()
    assert "batch_size = 3" in config
    assert load_recipe(str(folder / "config.toml")) == load_recipe(
        "my recipe.toml", {"training": {"batch_size": 3, "steps": 3}, "title": "of my own"}
    )


@pytest.mark.spec("training.refused-before-step-one")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nosuch"], "There is no recipe 'nosuch'; there are: ask, babi-16, babi-16-frozen"),
        (["nosuch.toml"], "nosuch.toml does not exist; give a TOML file"),
        (["my recipe.toml", "--set", "training.stepz=3"], "`training.stepz`: unknown (got 3); did you mean steps?"),
        (["my recipe.toml", "--set", "training.batch=3"], "`training.batch`: unknown (got 3); did you mean batch_size?"),
        (["my recipe.toml", "--set", "trainin.steps=3"], "`trainin`: unknown; did you mean training?"),
        (["my recipe.toml", "--set", "halting.max_loop=3"], "has no meaning for the halting rule 'confidence' (got 3)"),
        (["my recipe.toml", "--set", "training.steps"], "'training.steps' is no setting; write NAME=VALUE"),
        (["my recipe.toml", "--steps", "0"], "`training.steps`: Input should be greater than or equal to 1 (got 0)"),
        (["my recipe.toml", "--set", "evaluation.sizes=[0]"], "`evaluation.sizes.0`"),
        (["my recipe.toml", "--set", "task.name=nosuch.module:Task"], "there is no module 'nosuch'"),
        (["my recipe.toml", "--set", "task.name=json:JSONDecoder"], "is no task: it lacks `vocabulary`, `suites`"),
        (["my recipe.toml", "--data", "x.txt"], "`task.path`: has no meaning for the task 'addition'"),
        (["my recipe.toml", "--checkpoint-every", "-1"], "`--checkpoint-every` must be at least 0: got -1"),
        (["my recipe.toml", "--workers", "-1"], "`--workers` must be from 0 to"),
        (["my recipe.toml", "--resume"], "there is no unfinished run of my recipe with seed 0 in runs/my recipe"),
        (["my recipe.toml", "--resume", "--out", "nowhere"], "nowhere does not exist"),
        (["my recipe.toml", "--resume", "--out", "."], "is no run"),
        (["my recipe.toml", "--track", "nosuch"], "nosuch"),
        (["my recipe.toml", "--device", "nosuch"], "the device 'nosuch' is not available here"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_trained_is_refused_before_there_is_a_folder(words: list[str], says: str, capsys: Captured) -> None:
    assert says in refused(capsys, "train", *words)


def test_resume_finds_the_newest_unfinished_run_of_recipe_and_seed(here: Path, capsys: Captured) -> None:
    recipe = load_recipe("my recipe.toml")
    runs = here / "runs" / "my recipe"
    for name, seed, at in (("1", 0, 2), ("2", 7, 2), ("3", 0, 3), ("4", 0, 0), ("5", 1, 2)):
        if at:
            begun(runs / name, at, recipe, seed)
        else:
            run(runs / name, recipe, seed=seed)
    (runs / "6").mkdir()
    (runs / "6" / "run.json").write_text("damaged")
    assert main(["train", "my recipe.toml", "--resume"]) == 0
    assert "The run is in runs/my recipe/3: " in capsys.readouterr().out.replace("\n", " ")
    states = {path.name: state_of(path)["state"] for path in sorted(runs.iterdir())}
    assert [states[name] == "complete" for name in "12345"] == [False, False, True, True, False]
    assert main(["train", "my recipe.toml", "--resume", "--seed", "7"]) == 0
    assert state_of(runs / "2")["state"] == "complete"
    assert outcome(runs / "3")["weights"] == outcome(runs / "4")["weights"]


HOLD = (
    "import fcntl, sys; lock = open(sys.argv[1]); fcntl.flock(lock, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
)


@pytest.mark.spec("training.claimed")
def test_a_run_that_another_process_works_in_is_refused_until_it_ends(here: Path, capsys: Captured) -> None:
    pytest.importorskip("fcntl")
    recipe, folder = load_recipe("my recipe.toml"), here / "runs" / "my recipe" / "1"
    begun(folder, 2, recipe, seed=0)
    words = ["train", "my recipe.toml", "--resume", "--out", str(folder)]
    command = [sys.executable, "-c", HOLD, str(folder / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert f"another process works in {folder}; wait for it, or stop it" in refused(capsys, *words)
        assert "another process works in it; give another folder" in refused(capsys, *(w for w in words if w != "--resume"))
        assert "there is no unfinished run" in refused(capsys, *words[:3])
        assert main(["runs"]) == 0
        assert capsys.readouterr().out == "runs/my recipe/1: my recipe, seed 0: being worked in, step 2 of 4\n"
        other.kill()
    assert main(words) == 0


def test_a_run_may_be_started_outside_the_main_thread(here: Path, capsys: Captured) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["train", "my recipe.toml", "--out", "run"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert state_of(here / "run")["state"] == "complete"


def test_what_was_passed_over_stays_on_the_screen(here: Path, capsys: Captured) -> None:
    recipe = load_recipe("my recipe.toml")
    begun(here / "run", 3, recipe, seed=0)
    (here / "run" / "checkpoints" / "step-000000002" / "progress.json").write_text("{}")
    assert main(["train", "my recipe.toml", "--resume", "--out", "run"]) == 0
    err = capsys.readouterr().err.replace("\n", " ")
    assert "training my recipe: passed over: " in err
    assert "progress.json is damaged" in err
    assert "no checkpoint is whole: from step 1 again" in err


def test_runs_lists_what_is_there_and_how_far_it_is(here: Path, capsys: Captured) -> None:
    assert "runs is no folder; give one that holds runs" in refused(capsys, "runs")
    (here / "runs").mkdir()
    assert main(["runs"]) == 0
    assert capsys.readouterr().err == "there are no runs below runs.\n"
    run(here / "runs" / "a" / "done")
    begun(here / "runs" / "a" / "killed", at=5)
    begun(here / "runs" / "b" / "damaged", at=1)
    (here / "runs" / "b" / "damaged" / "run.json").write_text("{")
    begun(here / "runs" / "b" / "lost", at=1)
    (here / "runs" / "b" / "lost" / "log.jsonl").unlink()
    begun(here / "runs" / "b" / "early", at=1)
    (here / "runs" / "b" / "early" / "run.json").unlink()
    (here / "runs" / "b" / "older").mkdir()
    (here / "runs" / "b" / "older" / "run.json").write_text('{"schema": 1}')
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "runs/a/done: first-light, seed 5: complete"
    assert lines[1] == "runs/a/killed: first-light, seed 5: stopped at step 5 of 6; --resume goes on"
    assert "run.json is damaged" in lines[2]
    assert lines[3] == "runs/b/early: ?, seed ?: cut off as it began; --resume begins it"
    assert "log.jsonl cannot be read" in lines[4]
    assert f"is a run of schema 1; this version of looplm reads schema {SCHEMA}" in lines[5]
    assert len(lines) == 6
    assert main(["runs", "runs/a", "--json"]) == 0
    done, killed = map(json.loads, capsys.readouterr().out.splitlines())
    assert (done["folder"], done["steps"], done["done"][-1]) == ("runs/a/done", 6, "complete")
    assert (killed["recipe"], killed["seed"], killed["steps"], killed["done"]) == ("first-light", 5, 5, [])


def test_a_recipe_that_is_refused_in_python_is_refused_before_there_is_a_folder(here: Path) -> None:
    with pytest.raises(InputError, match="a gate has to be trained"):
        run(here / "run", tiny(model={"gate": True}))
    assert not (here / "run").exists()


@pytest.mark.parametrize("words", ["spec list", "profile list"])
def test_a_reader_who_has_had_enough_is_no_mistake(words: str) -> None:
    shell = f'"{sys.executable}" -m looplm {words} | head -n 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120, check=False)
    line, code = done.stdout.splitlines()
    assert line
    assert code in ("0", "141"), "all was read, or the pipe was closed"
    assert done.stderr == ""
