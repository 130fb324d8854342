"""Runs tests/kernels/interpreted in a process of its own: TRITON_INTERPRET must stand before Triton is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def interpreted(*arguments: str) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "tests/kernels/interpreted"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux only")
def test_fused_kernels_pass_their_tests_in_the_interpreter() -> None:
    interpreted("-m", "not slow")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux only")
def test_fused_kernels_pass_their_slow_tests_in_the_interpreter() -> None:
    interpreted("-m", "slow")
