"""The shape checks catch what they say they catch."""

from typing import Annotated

import pytest
import torch
from torch import Tensor
from typeguard import TypeCheckError, typechecked

from looplm.layers.positions import places_in_runs
from looplm.loop.injection import inject
from looplm.shapes import Bool, Float, Int, Shape
from looplm.tasks.addition.problems import add, problems_of


@typechecked
def pick(x: Annotated[Tensor, Float("B T D")], index: Annotated[Tensor, Int("B")]) -> Annotated[Tensor, Float("B D")]:
    return x[torch.arange(len(index)), index] if x.shape[1] < 9 else x[:, 0, :1]


@typechecked
def nested(depth: int, x: Annotated[Tensor, Shape("... N 2")]) -> Annotated[Tensor, Shape("... N 2")]:
    return nested(depth - 1, x[:-1]) if depth else x


def test_right_shapes_pass() -> None:
    pick(torch.zeros(2, 3, 4), torch.tensor([0, 2]))


def test_a_wrong_rank_is_caught() -> None:
    with pytest.raises(TypeCheckError, match=r"has shape \(2, 3\), expected \[B T D\]"):
        pick(torch.zeros(2, 3), torch.tensor([0, 2]))


def test_a_size_that_disagrees_across_arguments_is_caught() -> None:
    with pytest.raises(TypeCheckError, match="has axis B=3, but B=2 elsewhere in this call"):
        pick(torch.zeros(2, 3, 4), torch.tensor([0, 2, 1]))


def test_a_wrong_dtype_is_caught() -> None:
    with pytest.raises(TypeCheckError, match=r"has dtype torch.int64, expected a floating-point dtype"):
        pick(torch.zeros(2, 3, 4, dtype=torch.int64), torch.tensor([0, 2]))
    with pytest.raises(TypeCheckError, match=r"has dtype torch.int32, expected torch.int64"):
        pick(torch.zeros(2, 3, 4), torch.tensor([0, 2], dtype=torch.int32))


def test_a_wrong_result_is_caught() -> None:
    with pytest.raises(TypeCheckError, match="has axis D=1, but D=4"):
        pick(torch.zeros(2, 9, 4), torch.tensor([0, 2]))


def test_a_fixed_size_and_leading_axes_are_checked() -> None:
    nested(0, torch.zeros(5, 2))
    nested(0, torch.zeros(7, 5, 2))
    with pytest.raises(TypeCheckError, match="has axis 2=3, but 2=2"):
        nested(0, torch.zeros(5, 3))


def test_sizes_are_kept_per_call() -> None:
    with pytest.raises(TypeCheckError, match="but N=5 elsewhere"):
        nested(1, torch.zeros(5, 2))  # the inner call is right for N=4; the outer result is not for N=5


def test_what_is_no_tensor_is_caught() -> None:
    assert Bool("B").problem([True], {}) == "is not a torch.Tensor"


def test_checks_are_on_for_the_package() -> None:
    with pytest.raises(TypeCheckError, match="but T=3 elsewhere"):
        inject(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4), 1, "every")
    with pytest.raises(TypeCheckError, match=r"expected torch.bool"):
        places_in_runs(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
    assert add(problems_of([("1", "2")])).length.tolist() == [1]
