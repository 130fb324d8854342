"""The tool that breaks code does break it."""

import subprocess
import sys

from mutations import ROOT, functions, in_scope, mutants

from looplm import spec


def test_every_executable_clause_has_mutants_and_they_differ_from_the_code() -> None:
    made = {function: list(mutants(function)) for function in functions()}
    broken = {id for function, changes in made.items() if changes for id in function.clauses}
    computed = {id for id, clause in spec.clauses().items() if clause.code and not id.startswith("kernels.")}
    assert broken >= set(in_scope()) >= computed, sorted((set(in_scope()) | computed) - broken)
    for function, changes in made.items():
        for mutant in changes:
            assert mutant.original != mutant.mutated
            assert mutant.code.co_qualname == function.qualname


def test_a_mutant_is_injected_and_killed_by_the_tests_of_its_clause() -> None:
    command = [sys.executable, "tests/mutants.py", "--only", "looplm.loop.halting.Bounded"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "looplm.loop.halting.Bounded.__call__: 19 killed" in done.stdout
