"""Shapes are checked in every test; Hypothesis runs the same examples on every machine."""

from looplm.shapes import enable_checks

enable_checks("looplm")  # before anything else of the package is imported

import os  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

hypothesis.settings.register_profile(
    "looplm", deadline=None, derandomize=True, max_examples=int(os.environ.get("LOOPLM_EXAMPLES", "25")), print_blob=True
)
hypothesis.settings.load_profile("looplm")


@pytest.fixture(autouse=True)
def _same_conditions() -> None:
    """One thread, and the same random state at the start of each test."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return
