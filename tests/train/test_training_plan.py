"""Statements of the plan on losses and optimisers, decided by small computations that docs/data/transformer-plan.toml names."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from looplm.draws import Draw
from looplm.spec import oracle
from looplm.tasks.translation import Translation
from looplm.train.schedules.noam import Noam

D = 512

LOGITS = torch.tensor([3.2, 2.1, 1.8, -0.5, 1.2, -5.0], dtype=torch.float64)
"""Of 사랑한다 and five others, as the plan gives them."""


def test_a_sum_over_four_tokens_is_not_their_mean() -> None:
    logits, right = torch.randn(4, 9), torch.tensor([3, 1, 4, 1])
    sums, means = (float(cross_entropy(logits, right, reduction=how)) for how in ("sum", "mean"))
    assert sums == pytest.approx(4 * means)
    assert sums != pytest.approx(means)


def test_loss_falls_with_probability_and_has_no_bound() -> None:
    p = torch.linspace(0, 1, 1001).double()
    assert float(-p[0].log()) == math.inf
    assert all(high > low for high, low in pairwise((-p.log()).tolist()))


def gradient(logits: Tensor, loss: Any) -> Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits), logits)[0]


def test_the_gradient_of_cross_entropy_by_the_logits_has_a_bound() -> None:
    for wrong in (0.0, 10.0, 100.0, 1e6):
        logits = torch.tensor([0.0, wrong], dtype=torch.float64)
        found = gradient(logits, lambda z: cross_entropy(z[None], torch.tensor([0])))
        assert float(found.norm()) <= math.sqrt(2) + 1e-12


def test_squared_errors_have_weaker_gradients_and_equal_distances() -> None:
    target = torch.tensor([1.0, 0.0], dtype=torch.float64)
    logits = torch.tensor([0.001, 0.999], dtype=torch.float64).log()
    squared = gradient(logits, lambda z: ((z.softmax(-1) - target) ** 2).sum())
    crossed = gradient(logits, lambda z: cross_entropy(z[None], torch.tensor([0])))
    assert float(squared.norm()) < 0.1 * float(crossed.norm())

    def divergence(p: float, q: float) -> float:
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    near, far = (0.8 - 0.7) ** 2, (0.2 - 0.1) ** 2
    assert near == pytest.approx(far)
    assert divergence(0.8, 0.7) != pytest.approx(divergence(0.2, 0.1), rel=0.1)


def test_focal_loss_gives_hard_examples_more_weight() -> None:
    def focal(p: float, power: int) -> float:
        return -((1 - p) ** power) * math.log(p)

    assert focal(0.1, 2) / focal(0.9, 2) > focal(0.1, 0) / focal(0.9, 0)


def test_the_pieces_of_the_grammar_are_not_balanced() -> None:
    batch = Translation().batch(range(2000), Draw(0, "count"))
    counts = torch.bincount(batch.targets[batch.scored]).sort().values
    counts = counts[counts > 0]
    assert float(counts[-1]) > 10 * float(counts.median())


@pytest.mark.spec("training.label-smoothing")
def test_smoothed_labels_sum_to_one_by_the_clause_and_treat_all_others_alike() -> None:
    smoothed_loss, n = oracle("training").smoothed_loss, 50

    def label(token: int) -> float:
        return float(smoothed_loss([-float(i == token) for i in range(n)], 0, 0.1))

    labels = [label(token) for token in range(n)]
    assert sum(labels) == pytest.approx(1)
    assert labels[0] == pytest.approx(0.9 + 0.1 / n)
    assert labels[1:] == pytest.approx([0.1 / n] * (n - 1))
    assert 0.9 + (n - 1) * 0.1 / n != pytest.approx(1, abs=1e-4)  # as the plan says it
    assert 0.9 + (n - 1) * 0.1 / (n - 1) == pytest.approx(1)  # as the plan computes it


@pytest.mark.spec("training.noam")
def test_the_papers_rates_at_the_steps_that_the_plan_names() -> None:
    schedule, steps = Noam(width=D, warmup_steps=4000), 100_000
    rates = [schedule(step, steps) for step in range(steps)]
    assert max(rates) == rates[4000 - 1] != pytest.approx(0.001, rel=0.25)
    assert rates[20_000 - 1] == pytest.approx(0.0003, rel=0.25)
    assert f"{rates[-1]:.0e}" == "1e-04"
    warm, rest = rates[:4000], rates[4000:]
    assert sum(warm) / len(warm) > sum(rest) / len(rest)


def test_adam_moves_by_both_moments_and_adamw_decays_apart() -> None:
    def step(kind: Any, gradient: float, decay: float) -> float:
        weight = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        optimizer = kind([weight], lr=0.1, weight_decay=decay, betas=(0.9, 0.99), eps=1e-8)
        for grad in (1.0, gradient):
            weight.grad = torch.tensor([grad], dtype=torch.float64)
            optimizer.step()
        return float(weight.detach())

    for grad in (0.5, 100.0):
        first, second = 0.09 + 0.1 * grad, 0.0099 + 0.01 * grad**2
        move = 0.1 * first / (1 - 0.9**2) / (math.sqrt(second / (1 - 0.99**2)) + 1e-8)
        start = 2 - 0.1 / (1 + 1e-8)
        assert step(torch.optim.Adam, grad, 0.0) == pytest.approx(start - move)
        shrunk = 2 * (1 - 0.1 * 0.3) - 0.1 / (1 + 1e-8)
        assert step(torch.optim.AdamW, grad, 0.3) == pytest.approx(shrunk * (1 - 0.1 * 0.3) - move)
        assert step(torch.optim.Adam, grad, 0.3) != pytest.approx(shrunk * (1 - 0.1 * 0.3) - move)


@pytest.mark.spec("hardware.state-bytes")
def test_adam_doubles_what_training_holds_of_the_weights() -> None:
    weight = nn.Parameter(torch.randn(7, 3))
    optimizer = torch.optim.Adam([weight])
    weight.grad = torch.ones(7, 3)
    optimizer.step()
    moments = sum(value.numel() for value in optimizer.state[weight].values() if value.dim())
    assert (weight.numel() + weight.grad.numel() + moments) == 2 * (weight.numel() + weight.grad.numel())


def test_a_clipped_gradient_is_no_longer_than_one() -> None:
    weight = nn.Parameter(torch.randn(7, 3))
    for size in (0.1, 1e6):
        weight.grad = size * torch.randn(7, 3)
        nn.utils.clip_grad_norm_([weight], 1.0)
        assert float(weight.grad.norm()) <= 1 + 1e-5


def test_the_perplexity_of_an_even_guess_is_the_vocabulary() -> None:
    assert math.exp(float(cross_entropy(torch.zeros(1, 37), torch.tensor([5])))) == pytest.approx(37)
