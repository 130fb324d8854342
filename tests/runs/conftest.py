"""Runs that tests share."""

from pathlib import Path

import pytest
from tiny_recipe import run


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, with its pictures."""
    folder = tmp_path_factory.mktemp("runs") / "deeper" / "whole"
    run(folder)
    return folder
