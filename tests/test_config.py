"""Presets and settings: what is wrong is named, all of it at once."""

import pytest

from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.settings import as_table, parse
from looplm.train.recipe import Recipe, load_recipe, read_recipe, recipe_names


def test_every_preset_is_valid_and_survives_a_round_trip() -> None:
    for name in recipe_names():
        preset = read_recipe(name)
        assert preset.name == name
        assert parse(Recipe, as_table(preset), where="test") == preset


def test_a_control_differs_only_in_what_it_names() -> None:
    plain, rope = load_recipe("first-light"), load_recipe("first-light-rope")
    assert (rope.data, rope.training, rope.evaluation) == (plain.data, plain.training, plain.evaluation)
    assert rope.model.positions == "rope"


def test_settings_can_be_replaced() -> None:
    assert load_recipe("first-light", {"training": {"steps": 5}}).training.steps == 5
    assert load_recipe("first-light", {"training": {"steps": None}}) == load_recipe("first-light")


def test_an_unknown_preset_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(InputError, match=r"no preset 'nosuch'; there are: first-light, first-light-one-layer"):
        load_recipe("nosuch")
    with pytest.raises(InputError, match="no preset"):
        load_recipe("../presets/first-light")


def test_all_mistakes_are_named_at_once() -> None:
    table = {"name": "x", "title": "x", "model": {"vocab_size": 15, "width": "wide", "heads": 2, "mlp_width": 4, "depth": 3}}
    with pytest.raises(InputError) as caught:
        parse(Recipe, table, where="my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml is not valid: ")
    assert "`model.width`" in message
    assert "(got 'wide')" in message
    assert "`model.depth`" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "`width` must be a multiple of `heads`: got 8 and 3"),
        ({"heads": 8}, "width / heads must be even, got 1"),
        ({"heads": 4, "kv_heads": 3}, "`heads` must be a multiple of `kv_heads`: got 4 and 3"),
        ({"positions": "learned"}, "`max_positions` must be given"),
        ({"place_ids": (1,)}, "`place_ids` must be given for digit-place positions, and only for them"),
        ({"body": "static"}, "a static model has one loop"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{"vocab_size": 15, "width": 8, "heads": 2, "mlp_width": 8} | settings)  # type: ignore[arg-type]


def test_no_steps_are_refused() -> None:
    with pytest.raises(InputError, match=r"`training.steps`: .* greater than or equal to 1 \(got 0\)"):
        load_recipe("first-light", {"training": {"steps": 0}})
