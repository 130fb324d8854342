"""Runs that tests share."""

from pathlib import Path

import pytest
import torch
from tiny_recipe import run


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, with its pictures."""
    torch.set_num_threads(1)  # as in all tests, which this comes before
    folder = tmp_path_factory.mktemp("runs") / "deeper" / "whole"
    run(folder)
    return folder
