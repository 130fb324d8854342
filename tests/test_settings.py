"""Settings from files and from the command line: what is wrong is named, all of it at once."""

from pathlib import Path
from typing import Any

import pytest

from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.settings import changes_of, merge, read_extended, read_toml
from looplm.train.recipe import load_recipe

MODEL: dict[str, Any] = {"vocab_size": 15, "width": 8, "heads": 2, "mlp_width": 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "`width` must be a multiple of `heads`: got 8 and 3"),
        ({"heads": 8}, "width / heads must be even, got 1"),
        ({"heads": 4, "kv_heads": 3}, "`heads` must be a multiple of `kv_heads`: got 4 and 3"),
        ({"positions": "learned"}, "`max_positions` must be given"),
        ({"place_ids": (1,)}, "`place_ids` must be given for the positions 'place', and only for them"),
        ({"place_strict": True}, "`place_strict` has a meaning for the positions 'place' only"),
        ({"body": "static"}, "a static model has one loop"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**MODEL | settings)


def test_all_mistakes_are_named_at_once() -> None:
    changes = {"model": {"width": "wide", "depth": 3}, "training": {"steps": 0, "batch": 1}, "halting": {"rule": "fxed"}}
    with pytest.raises(InputError) as caught:
        load_recipe("first-light", changes)
    message = str(caught.value)
    assert message.startswith("recipe 'first-light' is not valid: ")
    assert "`model.width`" in message
    assert "(got 'wide')" in message
    assert "`model.depth`: unknown (got 3); did you mean width?" in message
    assert "`training.batch`: unknown (got 1); did you mean batch_size?" in message
    assert "`training.steps`: Input should be greater than or equal to 1 (got 0)" in message
    assert "`halting.rule`: there is no halting rule 'fxed'; did you mean fixed?" in message
    assert "\n" not in message


def test_tables_are_merged_and_a_choice_is_replaced_with_its_settings() -> None:
    base = {"title": "a", "training": {"steps": 1, "schedule": {"rule": "cosine", "floor": 0.1}}}
    assert merge(base, {"training": {"steps": 2}})["training"] == {"steps": 2, "schedule": {"rule": "cosine", "floor": 0.1}}
    assert merge(base, {"training": {"schedule": {"floor": 0.2}}})["training"]["schedule"] == {"rule": "cosine", "floor": 0.2}
    assert merge(base, {"training": {"schedule": {"rule": "wsd"}}})["training"]["schedule"] == {"rule": "wsd"}
    assert base["training"] == {"steps": 1, "schedule": {"rule": "cosine", "floor": 0.1}}, "nothing is changed in place"


def test_a_setting_of_the_command_line_is_written_as_in_toml() -> None:
    changes = changes_of(
        [
            "training.steps=5",
            "training.schedule.peak = 1e-2",
            "title=a = b",
            "evaluation.sizes=[2, 4]",
            'task={name = "addition"}',
        ]
    )
    assert changes == {
        "training": {"steps": 5, "schedule": {"peak": 0.01}},
        "title": "a = b",
        "evaluation": {"sizes": [2, 4]},
        "task": {"name": "addition"},
    }
    assert changes_of(["model.place_strict=true", "halting.rule=fixed"]) == {
        "model": {"place_strict": True},
        "halting": {"rule": "fixed"},
    }


@pytest.mark.parametrize("given", ["training.steps", "=5", "training.=5", ".=1", ""])
def test_what_is_no_setting_is_refused(given: str) -> None:
    with pytest.raises(InputError, match=r"is no setting; write NAME=VALUE, such as training\.batch_size=64"):
        changes_of([given])


def test_a_setting_below_what_is_no_table_is_refused_in_words() -> None:
    with pytest.raises(InputError, match=r"`training\.steps`"):
        load_recipe("first-light", changes_of(["training.steps=5", "training.steps.more=6"]))
    with pytest.raises(InputError, match="`training`"):
        load_recipe("first-light", changes_of(["training=5"]))


def find(name: str) -> Path:
    raise InputError(f"no {name}")


def test_files_extend_each_other_from_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.toml").write_text('title = "base"\n[model]\nwidth = 1\nheads = 1\n')
    (tmp_path / "deep" / "middle.toml").write_text('extends = "../base.toml"\n[model]\nwidth = 2\n')
    (tmp_path / "deep" / "mine.toml").write_text('\ufeffextends = "middle.toml"\ntitle = "mine"\n', encoding="utf-8")
    whole = read_extended(str(tmp_path / "deep" / "mine.toml"), find)
    assert whole == {"title": "mine", "model": {"width": 2, "heads": 1}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('extends = "a.toml"', "extends itself, by way of a.toml"),
        ('extends = "b.toml"', "extends itself, by way of a.toml and b.toml"),
        ('extends = "nosuch.toml"', r"nosuch\.toml does not exist; give a TOML file"),
        ('extends = "nosuch"', "no nosuch"),
        ("extends = 3", "no 3"),
        ("= 3", r"a\.toml is not valid TOML: .*line 1"),
        ("title = 1\ntitle = 2", r"a\.toml is not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(content)
    (tmp_path / "b.toml").write_text('extends = "a.toml"')
    with pytest.raises(InputError, match=says):
        read_extended(str(tmp_path / "a.toml"), find)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(InputError, match=r"bytes\.toml cannot be read: it is not UTF-8 text"):
        read_toml(tmp_path / "bytes.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match=r"folder\.toml cannot be read: Is a directory"):
        read_toml(tmp_path / "folder.toml")
