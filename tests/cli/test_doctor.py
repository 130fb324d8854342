"""`looplm doctor`: what a report of a fault needs, and no more work than that."""

import json
from pathlib import Path

import pytest

from looplm.cli import main
from looplm.resources import asset

Captured = pytest.CaptureFixture[str]


def test_doctor_names_versions_device_encodings_and_models(capsys: Captured) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"looplm", "Python", "torch", "device", "encodings", "model adder", "model parallel-adder"} <= set(found)
    assert found["model adder"] == "whole"
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == list(found)


def test_doctor_names_a_damaged_model(capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "adder").mkdir()
    for file in asset("adder").iterdir():
        (tmp_path / "adder" / file.name).write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.setattr("looplm.runs.checkpoint.asset", tmp_path.joinpath)
    assert main(["doctor"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("model adder")]
    assert "damaged" in line
