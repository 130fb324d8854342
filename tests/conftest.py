"""Shapes are checked in every test, examples are the same on every machine, and what was seen of each clause is kept."""

from looplm.shapes import enable_checks

enable_checks("looplm")  # before anything else of the package is imported

import os  # noqa: E402
import signal  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

hypothesis.settings.register_profile(
    "looplm", deadline=None, derandomize=True, max_examples=int(os.environ.get("LOOPLM_EXAMPLES", "25")), print_blob=True
)
hypothesis.settings.load_profile("looplm")

# What starts the tests may ignore signals, and children inherit that: a test that sends one wants it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

_outcomes: dict[str, dict[str, Any]] = {}


@pytest.fixture(autouse=True)
def _same_conditions() -> None:
    """One thread, and the same random state at the start of each test."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than all the rest of a tiny run; here they are files with nothing in them."""

    def save(figure: object, path: Path) -> list[Path]:
        written = [path.with_suffix(kind) for kind in (".svg", ".png")]
        for each in written:
            each.write_bytes(b"")
        return written

    monkeypatch.setattr("looplm.evaluate.figures.save_figure", save)
    monkeypatch.setattr("looplm.evaluate.figures.accuracy_figure", lambda *arguments: None)
    monkeypatch.setattr("looplm.evaluate.figures.trace_figure", lambda *arguments: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each test's report carry the clauses that it is marked with."""
    for item in items:
        clauses = sorted({id for mark in item.iter_markers("spec") for id in mark.args})
        if clauses:
            item.user_properties.append(("clauses", clauses))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the outcome of a test that names clauses: failed if any phase failed, else that of its call."""
    clauses = dict(report.user_properties).get("clauses")
    if not clauses:
        return
    entry = _outcomes.setdefault(report.nodeid, {"clauses": clauses, "outcome": report.outcome})
    if report.when == "call" or report.outcome != "passed":
        entry["outcome"] = "failed" if entry["outcome"] == "failed" else report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the evidence file, keeping what earlier runs saw of tests that still exist and were not run now."""
    if hasattr(session.config, "workerinput") or not _outcomes:
        return
    from looplm.files import to_json, write_file
    from looplm.runs.provenance import commit
    from looplm.spec.check import EVIDENCE, EVIDENCE_SCHEMA, checkout, read_evidence, sources_digest

    sources = sources_digest()
    seen = {test: entry | {"sources": sources} for test, entry in _outcomes.items()}
    kept = {
        test: entry
        for test, entry in read_evidence()["tests"].items()
        if (checkout() / test.split("::")[0]).exists() and entry["sources"] == sources
    }
    tests = dict(sorted((kept | seen).items()))
    write_file(checkout() / EVIDENCE, to_json({"schema": EVIDENCE_SCHEMA, "commit": commit(), "tests": tests}))
