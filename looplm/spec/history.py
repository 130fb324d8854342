"""Wordings of clauses over time: what an old citation meant, and what has changed since.

spec/history.toml keeps every recorded wording with its hash and the version that brought it; it only grows.
"""

import json
import tomllib
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

import tomli_w

from looplm import spec
from looplm.errors import InputError
from looplm.files import write_file
from looplm.resources import resource

_HEADER = (
    "# Every recorded wording of every clause, oldest first. Written by `looplm spec record`; entries are never removed.\n\n"
)


@dataclass(frozen=True)
class Wording:
    """One clause at one time."""

    id: str
    hash: str
    since: str
    """The version that brought it."""
    sentence: str
    code: str


@dataclass(frozen=True)
class Stale:
    """A citation whose clause is no longer what it was."""

    citation: str
    now: str
    """The citation of the clause today, or `withdrawn`."""


def history() -> list[Wording]:
    """All recorded wordings, oldest first."""
    path = resource("spec") / "history.toml"
    return [Wording(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("wording", [])]


def unrecorded() -> list[str]:
    """Citations of clauses whose present wording the history lacks."""
    recorded = {f"{wording.id}@{wording.hash}" for wording in history()}
    return [citation for citation in map(spec.citation, spec.clauses()) if citation not in recorded]


def record() -> list[str]:
    """Add the present wordings that the history lacks; gives their citations."""
    new = unrecorded()
    wordings = [vars(wording) for wording in history()]
    for citation in new:
        id, _, hash = citation.partition("@")
        clause = spec.find(id)
        wordings.append({"id": id, "hash": hash, "since": spec.version(), "sentence": clause.sentence, "code": clause.code})
    if new:
        content = _HEADER + tomli_w.dumps({"wording": wordings}, multiline_strings=True)
        write_file(resource("spec") / "history.toml", content.encode())
    return new


def changes_since(id: str, hash: str) -> str:
    """What has changed in a clause since the wording of this hash, as a unified diff; empty if nothing has.

    Raises:
        InputError: if that wording was never recorded.
    """
    current = spec.citation(id)
    if current == f"{id}@{hash}":
        return ""
    known = {wording.hash: wording for wording in history() if wording.id == id}
    if hash not in known:
        raise InputError(f"{id}@{hash} was never recorded; recorded are: {', '.join(known) or 'none'}; now it is {current}.")
    old, new = known[hash], spec.find(id)
    before, after = ([w.sentence, "", *w.code.splitlines()] for w in (old, new))
    return "\n".join(unified_diff(before, after, f"{id}@{hash} (from {old.since})", f"{current} (now)", lineterm=""))


def stale(run: Path) -> list[Stale]:
    """Citations of a run whose clause has changed or been withdrawn.

    Args:
        run: a run's folder, or its log.jsonl, summary.json or model.json.
    """
    found = []
    for citation in _citations(run):
        id = citation.partition("@")[0]
        now = spec.citation(id) if id in spec.clauses() else "withdrawn"
        if now != citation:
            found.append(Stale(citation, now))
    return found


def _citations(run: Path) -> list[str]:
    path = next((run / name for name in ("log.jsonl", "model.json") if (run / name).exists()), run)
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text.splitlines()[0] if path.suffix == ".jsonl" else text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, IndexError):
        raise InputError(f"{run} holds no readable log; give a run folder, a log.jsonl or a summary.json.") from None
    citations = list(dict.fromkeys(_find_clauses(document)))
    if not citations:
        raise InputError(f"{path} cites no clauses; give a run folder, a log.jsonl or a summary.json.")
    return citations


def _find_clauses(document: Any) -> list[str]:
    """The strings of every list under a key `clauses`, at any depth."""
    if isinstance(document, dict):
        here = document.get("clauses", [])
        own = [item for item in here if isinstance(item, str)] if isinstance(here, list) else []
        return own + [c for key, value in document.items() if key != "clauses" for c in _find_clauses(value)]
    if isinstance(document, list):
        return [citation for item in document for citation in _find_clauses(item)]
    return []
