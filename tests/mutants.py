"""Do the tests notice when the code that a clause names is wrong? `make mutants` answers, and writes docs/data/mutants.*.

Every function that a clause names is broken in one small way at a time (tests/mutations.py). Then the tests run that
are marked with any clause which the function cites, and one of them should fail. What survives is explained in
tests/mutants.toml, or is a hole, and the exit status says so.

pytest collects once and forks for each mutant. In the child the function's `__code__` is exchanged, so that whoever
imported it runs the mutant; no file changes. The package runs without its shape checks here, so the kill is the test's.
mutmut and cosmic-ray import torch anew for every mutant and know nothing of clauses; hence a tool of our own.
"""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from mutations import ROOT, Mutant, functions, in_scope, mutants

import looplm
from looplm import spec
from looplm.files import to_json, write_file
from looplm.spec import check as spec_check

REPORT = ROOT / "docs" / "data" / "mutants.json"
KILLED = ROOT / "build" / "mutants-killed.json"
"""What this run has killed so far, for `--resume`."""
EXPLANATIONS = ROOT / "tests" / "mutants.toml"
EXAMPLES = 25
"""Of each property, as in `make test`."""
CPU_LIMIT_S = 10
"""CPU time of one mutant: one that runs longer, in a loop without end, counts as killed."""


class Runner:
    """A pytest plugin that, in place of the test run, runs the tests of each mutant in a fork."""

    def __init__(self, only: tuple[str, ...], resume: bool) -> None:
        self.only = only
        self.resume = resume
        self.killed: dict[str, Any] = json.loads(KILLED.read_text()) if resume and KILLED.exists() else {}
        self.outcomes: list[tuple[Mutant, str, set[str]]] = []
        """Mutant; killed, timeout or survived; and the clauses of the test that killed it."""
        self.seconds = 0.0

    def pytest_sessionstart(self) -> None:
        """Always the same examples, and no search for a smaller one: after conftest, before the tests are imported."""
        settings, phases = hypothesis.settings, (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        slow = [hypothesis.HealthCheck.too_slow]
        settings.register_profile(
            "mutants", settings.get_profile("looplm"), max_examples=EXAMPLES, phases=phases, suppress_health_check=slow
        )
        settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Every mutant of every function, a line each function."""
        items = [item for item in session.items if not any(item.iter_markers("slow"))]
        wanted = [function for function in functions() if function.name.startswith(self.only)]
        needed = {id for function in wanted for id in function.clauses}
        outcome, failed = _in_a_fork([item for item in items if _clauses(item) & needed], lambda: None)
        if outcome != "survived":
            raise pytest.UsageError(f"without any mutant: {outcome} {failed.nodeid if failed else ''}")
        for function in wanted:
            began, outcomes = time.monotonic(), Counter[str]()
            tests = [item for item in items if _clauses(item) & set(function.clauses)]
            for number, mutant in enumerate(mutants(function)):
                id, started = f"{number} {' | '.join(mutant.key)}", time.monotonic()
                if id not in self.killed:
                    outcome, killer = _in_a_fork(tests, mutant.inject)
                    tests.sort(key=lambda test: test is not killer)  # what killed this one may kill the next
                    seen = (outcome, sorted(_clauses(killer)) if killer else [], time.monotonic() - started)
                else:
                    seen = self.killed[id]
                outcome, credited, seconds = seen
                self.outcomes.append((mutant, outcome, set(credited)))
                self.seconds += seconds
                outcomes[outcome] += 1
                if outcome != "survived":
                    self.killed[id] = seen
                if outcome == "survived":
                    print(f"  survived, line {mutant.line}: {mutant.original}  ->  {mutant.mutated}", flush=True)
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "nothing to change"
            print(f"{function.name}: {counts} ({time.monotonic() - began:.0f} s)", flush=True)
            if self.resume and KILLED.exists():  # another run may have added to it
                self.killed |= json.loads(KILLED.read_text())
            write_file(KILLED, to_json(self.killed))
        self._credit_each_clause(items)
        return True

    def _credit_each_clause(self, items: list[pytest.Item]) -> None:
        """Where a mutant fell to another clause's test first, ask the clause's own tests too, until one kills."""
        for id in in_scope():
            tests = [item for item in items if id in _clauses(item)]
            for mutant, _, credited in (
                each for each in self.outcomes if each[1] == "killed" and id in each[0].function.clauses
            ):
                if any(id in other and id in each.function.clauses for each, _, other in self.outcomes):
                    break
                if _in_a_fork(tests, mutant.inject)[0] == "killed":
                    credited.add(id)


def _clauses(item: pytest.Item) -> set[str]:
    return {id for mark in item.iter_markers("spec") for id in mark.args}


def _in_a_fork(tests: list[pytest.Item], prepare: Callable[[], None]) -> tuple[str, pytest.Item | None]:
    """Run tests in a child until one fails: killed, timeout or survived, and the test that failed."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
        prepare()
        for number, (item, following) in enumerate(zip(tests, [*tests[1:], None], strict=True)):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if item.session.testsfailed:
                os.write(write_end, str(number).encode())
                os._exit(1)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        failed = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            raise pytest.UsageError("a mutant was stopped from outside, or for want of memory; run again with --resume")
        return ("timeout" if os.WTERMSIG(status) == signal.SIGPROF else "killed"), None
    return ("killed", tests[int(failed)] if failed else None) if status else ("survived", None)


def explanations() -> dict[tuple[str, str, str], str]:
    """Why each accepted survivor survives, by function, original and mutated statement."""
    listed = tomllib.loads(EXPLANATIONS.read_text(encoding="utf-8")).get("survivor", [])
    return {(entry["function"], entry["original"], entry["mutated"]): entry["why"] for entry in listed}


def report(runner: Runner) -> dict[str, Any]:
    """Counts by clause and by function, and every survivor with its explanation."""
    import torch

    why = explanations()
    by_clause: dict[str, Counter[str]] = {id: Counter() for id in in_scope()}
    by_function: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, outcome, credited in runner.outcomes:
        by_function[mutant.function.name][outcome] += 1
        for id in by_clause.keys() & set(mutant.function.clauses):
            by_clause[id] += Counter({outcome: 1, "by_own_test": int(id in credited)})
    survivors = [
        {
            "clauses": list(mutant.function.clauses),
            "function": mutant.function.name,
            "where": f"{mutant.function.module.replace('.', '/')}.py:{mutant.line}",
            "original": mutant.original,
            "mutated": mutant.mutated,
            "why": why.get(mutant.key, ""),
        }
        for mutant, outcome, _ in runner.outcomes
        if outcome == "survived"
    ]
    counts = Counter(outcome for _, outcome, _ in runner.outcomes)
    return {
        "schema": 1,
        "sources": spec_check.sources_digest(),
        "setup": {"examples": EXAMPLES, "python": platform.python_version(), "torch": torch.__version__},
        "seconds": round(runner.seconds),
        "made": counts.total(),
        **{outcome: counts[outcome] for outcome in ("killed", "timeout", "survived")},
        "clauses": [
            {"citation": spec.citation(id), **_row(counter), "killed_by_own_test": counter["by_own_test"]}
            for id, counter in by_clause.items()
        ],
        "functions": [{"name": name, **_row(counter)} for name, counter in by_function.items()],
        "survivors": survivors,
    }


def as_markdown(found: dict[str, Any]) -> str:
    """The report for reading."""
    setup = found["setup"]
    lines = [
        "# Mutation evidence",
        "",
        "Written by `make mutants`; what it does stands in [tests/mutants.py](../../tests/mutants.py).",
        "",
        f"{found['made']} mutants: {found['killed']} killed by a test, {found['timeout']} ran into a loop without end, "
        f"{found['survived']} survived and are explained below. {found['seconds']} s in one process on a CPU, "
        f"{setup['examples']} examples a property, Python {setup['python']}, torch {setup['torch']}.",
        "",
        "A function that carries out several clauses is counted at each of them. *Own* mutants fell to a test that is marked",
        "with that very clause; the tests run until the first fails, so there may be more.",
        "",
        "| clause | mutants | killed | own | timeout | survived |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {row['citation']} | {row['made']} | {row['killed']} | {row['killed_by_own_test']} | {row['timeout']} "
            f"| {row['survived']} |"
            for row in found["clauses"]
        ),
        "",
        "## Survivors",
        "",
    ]
    for function in sorted({survivor["function"] for survivor in found["survivors"]}):
        lines += [f"### {function}", ""]
        for survivor in (each for each in found["survivors"] if each["function"] == function):
            change = f"`{survivor['original']}` became `{survivor['mutated']}`"
            lines += [f"- {survivor['where']}: {change}. {survivor['why'] or '**Not explained.**'}"]
        lines += [""]
    return "\n".join(lines)


def _row(counter: Counter[str]) -> dict[str, int]:
    names = ("killed", "timeout", "survived")
    return {"made": sum(counter[name] for name in names), **{name: counter[name] for name in names}}


def main(arguments: list[str]) -> int:
    """Run, say what happened, and write the report if nothing was left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", help="functions whose dotted names start so; then no report is written")
    parser.add_argument("--resume", action="store_true", help="what an earlier run killed stays so: tests were only added")
    given = parser.parse_args(arguments)
    only = tuple(given.only or [""])
    os.chdir(ROOT)
    for module in pkgutil.walk_packages(looplm.__path__, "looplm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # before conftest switches the shape checks on
    importlib.import_module("datasets")  # slow, and the package imports it late
    marks, needed = spec_check._marks(ROOT), {id for f in functions() if f.name.startswith(only) for id in f.clauses}
    files = sorted({test.split("::")[0] for id in needed for test in marks[id]})
    runner = Runner(only, given.resume)
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "-qq",
            "-s",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            "--basetemp",
            f"{folder}/tests",
        ]
        status = pytest.main([*options, *files], plugins=[runner])
    if status:
        return int(status)
    found, explained = report(runner), set(explanations())
    survived = {(s["function"], s["original"], s["mutated"]) for s in found["survivors"]}
    bad = [f"unexplained: {' | '.join(key)}" for key in sorted(survived - explained)]
    if not given.only:
        write_file(REPORT, to_json(found))
        write_file(REPORT.with_suffix(".md"), as_markdown(found).encode())
        bad += [f"explained, but killed or gone: {' | '.join(key)}" for key in sorted(explained - survived)]
        bad += [f"{row['citation']}: its own tests kill no mutant" for row in found["clauses"] if not row["killed_by_own_test"]]
    print(f"{found['made']} made, {found['killed']} killed, {found['timeout']} timeout, {found['survived']} survived", end=" ")
    print(f"in {found['seconds']} s", *bad, sep="\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
