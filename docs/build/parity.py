"""What must be the same on a page and on its translation, and where it is not.

Headings with their ids, code (comments may be translated), mathematics, citations, links and what a page asks to have
rendered: all of these stand in both, in the same order or, where word order differs, equally often.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stage import english_pages, in_language
from walkthrough import chapters, read_cells

_FENCE = re.compile(r"^(?P<edge>`{3,})(?P<info>.*?)\n(?P<code>.*?)^(?P=edge)$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) .+?(?: \{#([a-z0-9.-]+)\})?$", re.MULTILINE)


def facts(text: str) -> dict[str, Any]:
    """Name → what must be the same."""
    fences = [(match["info"], re.sub(r"\s*# .*$", "", match["code"], flags=re.MULTILINE)) for match in _FENCE.finditer(text)]
    prose = _FENCE.sub("", text)
    return {
        "headings": [(len(marks), id) for marks, id in _HEADING.findall(prose)],
        "code": fences,
        "displayed mathematics": re.findall(r"\$\$(.+?)\$\$", prose, re.DOTALL),
        "mathematics": Counter(re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", prose)),
        "citations": Counter(re.findall(r"\]\[([\w.-]+)\]|\[([\w.-]+)\]\[\]", prose)),
        "links": Counter(target.replace(".ko.md", ".md") for target in re.findall(r"\]\(([^)\s]+)", prose)),
        "rendered parts": re.findall(r"<!-- render: (.+?) -->", prose),
        "front matter": re.findall(r"\A---\n(.*?)\n---\n", text, re.DOTALL),
        "admonitions": re.findall(r"^(?:!!!|\?\?\?\+?) (\w+)", prose, re.MULTILINE),
        "table rows": [line.count("|") for line in prose.splitlines() if line.startswith("|")],
    }


def differences(english: str, korean: str) -> list[str]:
    """What differs, a line each; headings without an id too, because a Korean heading gives no usable anchor."""
    ours, theirs = facts(english), facts(korean)
    found = [f"{name} differ: {_only(ours[name], theirs[name])}" for name in ours if ours[name] != theirs[name]]
    return found + ["a heading has no id: write `{#id}`"] * any(not id for _, id in [*ours["headings"], *theirs["headings"]])


def pairs(root: Path) -> Iterator[tuple[str, str, str]]:
    """Name, English text and Korean text: each page of docs/, and each pair of narration cells of examples/.

    Raises:
        ValueError: if narration cells do not alternate, English first.
    """
    for page in english_pages(root / "docs"):
        korean = in_language(page, "ko").read_text(encoding="utf-8")
        yield page.relative_to(root).as_posix(), page.read_text(encoding="utf-8"), korean
    for script in chapters(root):
        told = [cell for cell in read_cells(script.read_text(encoding="utf-8")) if not cell.code]
        if [cell.language for cell in told] != ["en", "ko"] * (len(told) // 2):
            raise ValueError(f'{script.name}: narration cells must come in pairs, lang="en" and then lang="ko".')
        for number, (english, translated) in enumerate(zip(told[::2], told[1::2], strict=True), 1):
            yield f"{script.relative_to(root).as_posix()}, pair {number}", english.source, translated.source


def _only(ours: Any, theirs: Any) -> str:
    """What stands in one language only."""
    if isinstance(ours, Mapping):
        ours, theirs = list(Counter(ours).elements()), list(Counter(theirs).elements())
    english = [item for item in ours if item not in theirs]
    korean = [item for item in theirs if item not in ours]
    return f"English only {english}, Korean only {korean}" if english or korean else "their order or number"
