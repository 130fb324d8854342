"""Which English words each Korean text was written for, so that neither can change alone and go unseen.

    python docs/build/translations.py             what is no longer as it was accepted
    python docs/build/translations.py --accept    take all of it as it stands: once translated, or if nothing had to be

A unit is a section of a page, a narration cell, or a clause's sentence. translations.json keeps a hash of its English and
of its Korean: of the words alone, so that code and the breaking of lines do not count.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import parity
from stage import ROOT, english_pages, in_language

from looplm.spec import parse_clauses

LOCK = Path(__file__).with_name("translations.json")
_FENCE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} .*\{#([a-z0-9.-]+)\}$", re.MULTILINE)


def units(root: Path) -> dict[str, str]:
    """Name → hash of the English and hash of the Korean."""
    found: dict[str, str] = {}
    section: dict[str, str] = {}
    for name, english, korean in [*parity.pairs(root), *_spec_pairs(root)]:
        file = name.partition(",")[0]
        for (id, ours), (_, theirs) in zip(_sections(english), _sections(korean), strict=False):  # parity has its own test
            section[file] = id or section.get(file, "")
            unit, number = f"{file}#{section[file]}", 1
            while unit in found:  # several cells stand under one heading
                number += 1
                unit = f"{file}#{section[file]}, {number}"
            found[unit] = f"{_hash(ours)} {_hash(theirs)}"
    return found


def changes(root: Path, lock: Path = LOCK) -> dict[str, str]:
    """Name → what is no longer as it was accepted."""
    now = units(root)
    accepted: dict[str, str] = json.loads(lock.read_text(encoding="utf-8")) if lock.exists() else {}
    found = {unit: "is gone" for unit in accepted if unit not in now}
    for unit, hashes in now.items():
        if unit not in accepted:
            found[unit] = "is new"
        elif hashes != accepted[unit]:
            ours, theirs = (new == old for new, old in zip(hashes.split(), accepted[unit].split(), strict=True))
            found[unit] = (
                "has changed in both languages"
                if not ours and not theirs
                else "has changed in English, and its Korean has not"
                if theirs
                else "has changed in Korean, and its English has not"
            )
    return found


def accept(root: Path, lock: Path = LOCK) -> None:
    """Take all units as they stand."""
    lock.write_text(json.dumps(units(root), indent=0, sort_keys=True) + "\n", encoding="utf-8")


def _spec_pairs(root: Path) -> Iterator[tuple[str, str, str]]:
    """Of each spec file what stands in both languages: the opening, and each clause's sentence."""
    for path in english_pages(root / "spec"):
        texts = [in_language(path, language).read_text(encoding="utf-8") for language in ("en", "ko")]
        name = path.relative_to(root).as_posix()
        english, korean = ({c.id: c.sentence for c in parse_clauses(text, path.name)} for text in texts)
        if not english:
            yield name, texts[0], texts[1]
            continue
        opening, opening_in_korean = (
            re.split(r"^##", _FENCE.sub("", text), maxsplit=1, flags=re.MULTILINE)[0] for text in texts
        )
        yield name, opening, opening_in_korean
        for id, sentence in english.items():
            yield name, f"### {id} {{#{id}}}\n{sentence}", f"### {id} {{#{id}}}\n{korean.get(id, '')}"


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """A text cut before each heading that has an id: the id, "" for what comes before the first, and the words."""
    text = _FENCE.sub("", text)
    starts = list(_HEADING.finditer(text))
    ends = [*(match.start() for match in starts), len(text)]
    if text[: ends[0]].strip():
        yield "", text[: ends[0]]
    for match, end in zip(starts, ends[1:], strict=True):
        yield match[1], text[match.start() : end]


def _hash(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:12]


if __name__ == "__main__":
    found = changes(ROOT)
    for unit, what in found.items():
        print(f"{unit} {what}.")
    if "--accept" in sys.argv[1:]:
        accept(ROOT)
        print(f"{len(found)} accepted.")
    elif found:
        sys.exit("Translate what needs it, then run `python docs/build/translations.py --accept`.")
