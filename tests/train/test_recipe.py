"""A recipe that is accepted goes through all stages; one that would not is refused before step 1."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import korean_text
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_recipe import CPU, tiny

from looplm.errors import InputError
from looplm.runs.run import run_recipe
from looplm.settings import as_table, changes_of, merge
from looplm.stories.simulate import simulate
from looplm.train.recipe import load_recipe, parse_recipe, recipe_names


def test_every_shipped_recipe_is_valid_and_survives_a_round_trip(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a loop. " * 200, encoding="utf-8")
    stories, korean = tmp_path / "qa16_train.txt", tmp_path / "korean.txt"
    stories.write_text("\n".join(simulate(400, 0)), encoding="utf-8")
    korean.write_text(korean_text.korean(), encoding="utf-8")
    pieces = {"ko-text": 4000, "ko-text-looped": 4000, "ko-tiny": 2000}
    for name, count in pieces.items():
        (tmp_path / f"{name}.model").write_bytes(korean_text.tokenizer(count).model)
    few = {"task": {"path": str(stories)}, "evaluation": {"problems_per_cell": 20}}
    changes = {"text": {"task": {"path": str(text)}}} | {name: few for name in recipe_names() if name.startswith("babi")}
    changes |= {name: {"task": {"path": str(korean), "tokenizer": str(tmp_path / f"{name}.model")}} for name in pieces}
    for name in recipe_names():
        recipe = load_recipe(name, changes.get(name))
        assert recipe.name == name
        assert parse_recipe(as_table(recipe), where="test") == recipe


def test_a_control_differs_only_in_what_it_names() -> None:
    plain, rope = load_recipe("first-light"), load_recipe("first-light-rope")
    assert (rope.task, rope.training, rope.evaluation) == (plain.task, plain.training, plain.evaluation)
    assert rope.model.positions == "rope"


def test_settings_can_be_replaced() -> None:
    assert load_recipe("first-light", {"training": {"steps": 5}}).training.steps == 5
    assert load_recipe("first-light", {}) == load_recipe("first-light")


def test_an_unknown_recipe_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(InputError, match=r"no recipe 'nosuch'; there are: ask, babi-16, babi-16-frozen.*ends in \.toml"):
        load_recipe("nosuch")
    with pytest.raises(InputError, match="no recipe"):
        load_recipe("../presets/first-light")


def test_a_recipe_of_ones_own_extends_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "first-light"\n[training]\nsteps = 7\n')
    mine = load_recipe(str(tmp_path / "mine.toml"))
    assert (mine.name, mine.training.steps, mine.model) == ("mine", 7, load_recipe("first-light").model)
    (tmp_path / "named.toml").write_text('extends = "mine.toml"\nname = "other"\n')
    assert load_recipe(str(tmp_path / "named.toml")).name == "other"
    with pytest.raises(InputError, match="`name`"):
        load_recipe(str(tmp_path / "mine.toml"), {"name": "a/b"})


PARALLEL = ["task.mode=parallel"]
LEARNED = ["model.positions=learned"]
STATIC = ["model.body=static", "model.loop_signal=none", "model.state_norm=false"]
ONCE = ["training.min_loops=1", "training.max_loops=1", "halting.rule=fixed", "halting.max_loops=1"]
KNOWN = [*PARALLEL, "training.score=all", "training.before_due=unknown", "model.place_strict=true", "model.loop_signal=none"]


@pytest.mark.spec("training.refused-before-step-one")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            [*LEARNED, "model.max_positions=14"],
            "is 14, but training has texts of 16 tokens; set it to 16 or more",
        ),
        (
            [*LEARNED, "model.max_positions=20"],
            r"is 20, but the test set .* of size 100 has texts of 304 tokens",
        ),
        (
            [*LEARNED, "model.max_positions=17", "evaluation.sizes=[4]"],
            "is 17, but the example of the run's trace has a text of 19 tokens; set it to 19 or more",
        ),
        (["evaluation.sizes=[]"], r"`evaluation\.sizes`: Tuple should have at least 1 item"),
        (["evaluation.sizes=[0]"], r"`evaluation\.sizes\.0`: .*greater than or equal to 1"),
        (["evaluation.sizes=[4, 4]"], "`sizes` must differ: got 4 more than once"),
        (["evaluation.sizes=[1001]"], "the test set uniform of size 1001 cannot be made"),
        (["model.vocab_size=12"], r"`model\.vocab_size` is 12, but the task has 15 tokens"),
        ([*PARALLEL, "model.vocab_size=15"], r"`model\.vocab_size` is 15, but the task has 16 tokens"),
        (["model.place_ids=[1, 2]"], r"`model\.place_ids` must be the task's, \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\]; leave it out"),
        ([*PARALLEL, "task.format=equals-first"], "`format` must not be 'equals-first'"),
        ([*STATIC, *ONCE[2:]], r"a static model is passed once: set `training\.min_loops = 1`"),
        ([*STATIC, *ONCE[:2]], r"a static model is passed once: set `halting\.max_loops = 1` \(got 6\)"),
        ([*STATIC, *ONCE, "training.restart_share=0.1"], "a static model has no loop to restart"),
        (
            [*STATIC, *ONCE, "model.gate=true", "gate.steps=1"],
            r"a static model is passed once: set `gate\.max_loops = 1` \(got 8\)",
        ),
        (["model.gate=true"], "a gate has to be trained"),
        (["gate.steps=1"], "a gate has to be trained"),
        (["halting={rule = 'gate', threshold = 0.5}"], "the halting rule 'gate' needs a model with a gate"),
        (["halting.prompt={rule = 'gate', threshold = 0.5}"], "the halting rule 'gate' needs a model with a gate"),
        (
            ["halting={rule = 'confidence', threshold = 0.5, unknown_id = 3}"],
            r"`halting\.unknown_id` is 3, but .* None",
        ),
        (
            [*KNOWN, "halting.prompt={rule = 'confidence', threshold = 0.5, unknown_id = 3}"],
            r"prompt\.unknown_id` is 3.* 15",
        ),
        (KNOWN[1:], "needs a task that knows how far its answers' news travel; .*needs a task with a token that says"),
        ([*KNOWN, "model.place_window=0"], "needs a body whose reach is limited"),
        ([*KNOWN, "model.place_strict=false"], r"needs a body whose reach is limited: .*`model\.place_strict = true`"),
        ([*KNOWN, "model.place_strict=false", "model.positions=rope"], "needs a body whose reach is limited"),
        (["training.before_due=unknown"], "it needs `score = 'all'`"),
        (["training.restart_share=0.5", "model.injection=first"], r"must be 0 with `model\.injection = 'first'`"),
        (["training.restart_share=0.5", "training.batch_size=1"], r"`training\.batch_size` must be at least 2"),
        (["training.min_loops=7"], r"`min_loops` \(7\) must not exceed `max_loops` \(6\)"),
    ],
)
def test_what_would_fail_later_is_refused(changes: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_recipe("first-light", changes_of(changes))
    assert "\n" not in str(caught.value)
    assert "vocab_size`: Field required" not in str(caught.value), "one mistake does not bring another"


@pytest.mark.spec("training.refused-before-step-one")
def test_all_contradictions_are_named_at_once() -> None:
    changes = ["model.gate=true", "model.vocab_size=12", "evaluation.sizes=[1001]", *STATIC]
    with pytest.raises(InputError) as caught:
        load_recipe("first-light", changes_of(changes))
    for part in (
        "a gate has to be trained",
        "`model.vocab_size` is 12",
        "size 1001 cannot be made",
        "a static model is passed once",
    ):
        assert part in str(caught.value)


@pytest.mark.spec("training.refused-before-step-one")
def test_sizes_are_asked_for_what_validation_and_the_report_will_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    from looplm.tasks.addition import Addition

    suite = Addition.suite

    def few(self: Addition, name: str, size: int, count: int, seed: int) -> Any:
        if count > 10:
            raise InputError(f"there are 10 of size {size}.")
        return suite(self, name, size, count, seed)

    monkeypatch.setattr(Addition, "suite", few)
    task = {"max_digits": 3, "carry_heavy_share": 0.123}  # no other test has drawn for it
    assert tiny(task=task)
    with pytest.raises(InputError, match="the test set uniform of size 2 cannot be made: there are 10 of size 2"):
        tiny(task=task, evaluation={"problems_per_cell": 11})
    with pytest.raises(InputError, match="the test set uniform of size 2 cannot be made: there are 10 of size 2"):
        tiny(task=task, training={"validate_every": 2})


SCHEDULES = ({"rule": "cosine"}, {"rule": "constant"}, {"rule": "wsd"}, {"rule": "noam", "width": 8})
RULES: tuple[dict[str, Any], ...] = (
    {"rule": "fixed"},
    {"rule": "two-equal-argmaxes"},
    {"rule": "two-equal-argmaxes", "in_order": True},
    {"rule": "confidence", "threshold": 0.3},
    {"rule": "state-change", "epsilon": 0.5},
    {"rule": "prefix-stability", "threshold": 0.3, "epsilon": 0.5},
)
MISFITS = (
    "model.vocab_size=12",
    "model.heads=3",
    "model.body=static",
    "model.gate=true",
    "model.positions=none",
    "model.positions=rope",
    "model.max_positions=9",
    "model.place_window=0",
    "model.place_strict=false",
    "model.injection=first",
    "task.format=equals-first",
    "task.mode=parallel",
    "task.mode=left-to-right",
    "task.max_digits=1",
    "training.before_due=skipped",
    "training.before_due=unknown",
    "training.batch_size=1",
    "training.restart_share=1",
    "training.min_loops=3",
    "training.max_loops=1",
    "gate.steps=1",
    "halting={rule = 'gate', threshold = 0.5}",
    "halting.max_loops=1",
    "halting.prompt={rule = 'gate', threshold = 0.5}",
    "halting.prompt={rule = 'confidence', threshold = 0.5, unknown_id = 15}",
    "evaluation.sizes=[]",
    "evaluation.sizes=[0]",
    "evaluation.sizes=[12]",
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """Recipes of models so small that they train in a moment: most of them fit, in some a part is of another."""

    def pick(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    def bounds(most: int) -> dict[str, int]:
        least = draw(st.integers(1, most))
        return {"min_loops": least, "max_loops": draw(st.integers(least, most))}

    positions, mode = pick("none", "rope", "learned", "place", "place"), pick("left-to-right", "parallel")
    static, gate = pick(False, False, True), pick(False, False, True)
    most = 1 if static else 3
    known = not static and positions == "place" and mode == "parallel" and pick(True, False)
    rules = (*RULES, *([{"rule": "gate", "threshold": 0.5}] if gate else []))
    rules += ({"rule": "confidence", "threshold": 0.9, "unknown_id": 15},) if mode == "parallel" else ()
    model = {
        "body": "static" if static else "looped",
        "width": 8,
        "heads": pick(1, 2, 4),
        "layers": pick(1, 2),
        "mlp": pick("gelu", "swiglu"),
        "mlp_width": 8,
        "norm": pick("rms", "layer"),
        "positions": positions,
        "injection": pick("every", "every", "first"),
        "loop_signal": "none" if static else pick("none", "sinusoidal", "learned"),
        "loop_signal_loops": pick(1, 3),
        "state_norm": not static and pick(True, False),
        "gate": gate,
    }
    model |= {"kv_heads": 1} if pick(True, False) else {}
    model |= {"max_positions": pick(24, 40)} if positions == "learned" else {}
    if positions == "place":
        model |= {"place_strict": known or pick(True, False), "place_reach": pick(1, 2)}
        model |= {"place_window": pick(1, 2)} if known or pick(True, False) else {}
    least = pick(1, 2)
    again = pick(0, 0.5, 1) if not static and model["injection"] == "every" else 0
    before_due = pick("skipped", "unknown") if known else "scored"
    halting = pick(*rules) | bounds(most)
    halting |= {"prompt": pick(*rules) | bounds(most)} if pick(True, False) else {}
    table = {
        "name": "drawn",
        "title": "drawn",
        "task": {
            "name": "addition",
            "format": pick("plain", "reversed", "double-reversed", *(["equals-first"] if mode == "left-to-right" else [])),
            "mode": mode,
            "min_digits": least,
            "max_digits": pick(least, least + 1),
        },
        "model": model,
        "training": {
            "steps": 2,
            "batch_size": pick(2, 3),
            **bounds(most),
            "restart_share": again,
            "restart_loops": 2,
            "stale_share": pick(0, 0.6, 1),
            "state_noise": pick(0, 0.5),
            "dropout": pick(0, 0.2),
            "score": "all" if before_due == "unknown" else pick("second-half", "all"),
            "before_due": before_due,
            "label_smoothing": pick(0, 0.1),
            "validate_every": pick(0, 1),
            "schedule": pick(*SCHEDULES),
        },
        "halting": halting,
        "evaluation": {
            "sizes": draw(st.lists(st.integers(1, 4), min_size=1, max_size=2, unique=True)),
            "problems_per_cell": pick(1, 3),
        },
    }
    table |= {"gate": {"steps": 2, "max_loops": most, "objective": pick("right", "ponder")}} if gate else {}
    misfits = draw(st.lists(st.sampled_from(MISFITS), max_size=2)) if pick(True, False, False) else []
    return merge(table, changes_of(misfits))


@pytest.mark.spec("training.refused-before-step-one")
@pytest.mark.usefixtures("no_pictures")
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables())
def test_what_is_accepted_goes_through_all_stages(table: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        recipe = parse_recipe(table, where="drawn")
    except InputError:
        return
    result = run_recipe(recipe, 0, tmp_path_factory.mktemp("drawn") / "run", CPU)
    assert result["training"]["steps"] == 2
    assert len(result["cells"]) == len(recipe.task.suites) * len(recipe.evaluation.sizes)


def _numbers(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where the fractions of a table stand."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _numbers(value, (*path, key))
        elif isinstance(value, float):
            yield (*path, key)


@pytest.mark.parametrize("name", ["first-light", "parallel", "prefix-sums"])
@pytest.mark.parametrize("strange", [float("inf"), float("-inf"), float("nan")])
def test_a_setting_is_a_finite_number(name: str, strange: float) -> None:
    places = list(_numbers(as_table(load_recipe(name))))
    assert len(places) > 5
    for path in places:
        table = as_table(load_recipe(name))
        inner = table
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = strange
        with pytest.raises(InputError, match=path[-1]):
            parse_recipe(table, where="test")
