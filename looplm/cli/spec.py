"""`looplm spec`: look up, cite and check the clauses of the specification."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from looplm.cli.console import FAILED, fail, notes, output


@dataclass(frozen=True)
class List:
    """List all clauses: citation and sentence."""

    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Print one line a clause."""
        from looplm.spec import citation, clauses

        if self.json:
            print(json.dumps([_described(id) for id in clauses()], ensure_ascii=False))
            return 0
        for id, clause in clauses().items():
            print(f"{citation(id)}  {clause.sentence}")
        return 0


@dataclass(frozen=True)
class Show:
    """Show a clause: sentence, code, examples; with id@hash, what has changed since."""

    id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
    """A clause, such as halting.kv-publish, or a citation of it."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Print the clause, or the difference."""
        from looplm.spec import citation, find, version
        from looplm.spec.history import changes_since

        id, _, hash = self.id.partition("@")
        clause = find(id)
        changes = changes_since(id, hash) if hash else ""
        if self.json:
            print(json.dumps(_described(id) | ({"changes": changes} if hash else {}), ensure_ascii=False))
            return 0
        if hash:
            print(changes or f"{self.id} is the present wording.")
            return 0
        head = f"{citation(id)}  (spec {version()}, {clause.file}:{clause.line})"
        print("\n\n".join([head, clause.sentence] + [text for text in (clause.code, clause.examples) if text]))
        return 0


@dataclass(frozen=True)
class Cite:
    """Print a clause's citation and the version of the spec, for a log or a paper."""

    ids: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[ID [ID ...]]")]
    """Clauses, such as halting.kv-publish."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Print one line a clause."""
        from looplm.spec import citation, version

        if self.json:
            print(json.dumps([{"citation": citation(id), "version": version()} for id in self.ids]))
            return 0
        for id in self.ids:
            print(f"{citation(id)}  (LoopLM spec {version()})")
        return 0


@dataclass(frozen=True)
class Check:
    """Check that every clause is well-formed, bilingual, implemented and proven by a test that passed."""

    run_tests: Annotated[bool, tyro.conf.arg(name="run")] = False
    """Run the tests first; else the evidence of their last run is read."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Print the matrix, then what is wrong; the exit code is 1 if anything is."""
        from looplm.spec.check import checkout, matrix, outdated, problems, read_evidence

        root = checkout()
        if self.run_tests:
            subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "2"], cwd=root, stdout=sys.stderr, check=False)
        wrong = problems()
        rows = [] if any(":" in line and line.startswith("spec/") for line in wrong) else matrix()
        old, commit = outdated(), read_evidence()["commit"]
        if self.json:
            print(json.dumps({"problems": wrong, "outdated": old, "commit": commit, "matrix": [asdict(row) for row in rows]}))
            return FAILED if wrong else 0
        for row in rows:
            passed = sum(outcome == "passed" for _, outcome in row.tests)
            output().print(
                f"{row.id} → {', '.join(row.implementations) or 'no docstring'} → {passed} of {len(row.tests)} tests passed"
                f" → {', '.join(row.pages) or 'no page'}"
            )
        if old:
            notes().print(f"{old} outcomes are older than the sources (seen at commit {commit}); --run runs the tests first.")
        for line in wrong:
            fail(line)
        notes().print(f"{len(rows)} clauses, {len(wrong)} problems")
        return FAILED if wrong else 0


@dataclass(frozen=True)
class StaleCommand:
    """List the citations of a run whose clause has changed since; the exit code is 1 if there are any."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, or a log.jsonl, summary.json or model.json."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Print one line a citation."""
        from looplm.spec.history import stale

        found = stale(self.path)
        if self.json:
            print(json.dumps([asdict(item) for item in found]))
        else:
            for item in found:
                print(f"{item.citation} is now {item.now}")
            notes().print(f"{len(found)} citations are stale" if found else "every citation is of the present wording")
        return FAILED if found else 0


@dataclass(frozen=True)
class Record:
    """Add the present wordings to spec/history.toml, so that citations of them can be explained later."""

    def run(self) -> int:
        """Record, and print what is new."""
        from looplm.spec.check import checkout
        from looplm.spec.history import record

        checkout()
        new = record()
        print("\n".join(new) if new else "nothing new")
        return 0


Action = (
    Annotated[List, tyro.conf.subcommand("list", prefix_name=False)]
    | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
    | Annotated[Cite, tyro.conf.subcommand("cite", prefix_name=False)]
    | Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[StaleCommand, tyro.conf.subcommand("stale", prefix_name=False)]
    | Annotated[Record, tyro.conf.subcommand("record", prefix_name=False)]
)


@dataclass(frozen=True)
class Spec:
    """Look up, cite and check the clauses of the specification."""

    action: Annotated[Action, tyro.conf.OmitArgPrefixes]

    def run(self) -> int:
        """Do what was asked."""
        return self.action.run()


def _described(id: str) -> dict[str, object]:
    from looplm.spec import citation, find, version

    clause = find(id)
    return {"id": id, "citation": citation(id), "version": version(), **{k: v for k, v in asdict(clause).items() if k != "id"}}
