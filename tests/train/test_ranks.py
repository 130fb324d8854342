"""Two ranks that take a slice of each batch give the gradient of one."""

from pathlib import Path

import pytest
import torch
from gloo_ranks import RANKS, gradient, work
from torch.multiprocessing.spawn import spawn


@pytest.mark.slow
@pytest.mark.spec("training.keyed-randomness")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_two_gloo_ranks_have_the_gradient_of_one(tmp_path: Path) -> None:
    spawn(work, args=(str(tmp_path),), nprocs=RANKS)
    for ours, whole in zip(torch.load(tmp_path / "found.pt"), gradient(0, 1), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-9, atol=1e-12)
