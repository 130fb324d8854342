"""What can be said of the benchmarks of a CPU without timing anything."""

from collections.abc import Iterator
from itertools import count

import pytest
import torch

from looplm.bench import generation, training
from looplm.bench.opponents import PlainGPT
from looplm.bench.timing import Run
from looplm.cli.bench import _line
from looplm.errors import InputError
from looplm.loop.halting import ByRole
from looplm.loop.halting.fixed import Fixed


def ticking() -> Iterator[float]:
    return (float(n) for n in count(1))


class Clock:
    """Runs what it is given once, and says that each call took a second longer than the last."""

    def __init__(self) -> None:
        self.ticks = ticking()

    def __call__(self, run: Run, calls: int) -> float:
        run()
        return next(self.ticks)


def test_the_planned_loops_have_a_mean_of_five_of_twelve() -> None:
    left, mean = 1.0, 0.0
    for l, hazard in enumerate(generation._hazards(12, 5), 1):
        mean, left = mean + l * left * hazard, left * (1 - hazard)
    assert mean == pytest.approx(5) and left == pytest.approx(0)


def test_a_row_of_decoding_holds_every_ratio_that_its_contenders_allow() -> None:
    row = generation.decode(generation.draw_model(32, 4), None, 2, 2, Clock(), new=16)
    assert row["seconds"].keys() == {"halting", "all loops", "rows wait"}
    assert row["ratios"].keys() == {"rows wait / halting"}
    assert row["mean_loops"] == pytest.approx(5, abs=0.15)
    assert "decode d=32 batch=2 loops=" in _line(row)


def test_rows_that_wait_say_what_rows_say_that_do_not() -> None:
    model, rule = generation.draw_model(32, 4), ByRole(generation.Planned(12), Fixed(12))
    prompts = torch.randint(0, generation.VOCABULARY, (3, 5))
    together = generation._generate(model, prompts, rule, 6).tokens
    assert generation.waiting(model, prompts, rule, 6) == together


def test_nothing_is_timed_if_the_tokens_are_not_those_of_the_whole_text() -> None:
    model, rule = generation.draw_model(32, 4), ByRole(generation.Planned(12), Fixed(12))
    prompts = torch.randint(0, generation.VOCABULARY, (1, 5))
    found = generation._generate(model, prompts, rule, 4)
    found.loops_taken[0][2] += 1
    with pytest.raises(InputError, match="nothing is timed"):
        generation._same_as_read_whole(model, rule, prompts, found)


def test_a_prompt_is_read_with_halting_and_with_all_loops() -> None:
    row = generation.prefill(generation.draw_model(32, 4), 1, Clock(), tokens=24)
    assert row["ratios"].keys() == {"all loops / halting"} and 3 < row["mean_loops"] < 7


def test_rows_of_training_set_looped_steps_beside_plain_ones() -> None:
    rows = [training.norms(1, Clock(), 2, 3, 8), training.equal_work(1, Clock(), width=16), training.first_light(1, Clock())]
    assert [list(row["ratios"]) for row in rows[1:]] == [["plain GPT / looped"]] * 2
    assert all(_line(row) for row in rows)


def test_the_plain_gpt_is_causal() -> None:
    plain = PlainGPT(2, 16, 4, 32, 11, 8)
    tokens = torch.randint(0, 11, (2, 8))
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    torch.testing.assert_close(plain(tokens)[:, :5], plain(changed)[:, :5])
    assert not torch.equal(plain(tokens)[:, 5], plain(changed)[:, 5])
