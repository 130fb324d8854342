"""What `looplm heads` and `looplm translate --json` wrote, as a page shows it: relations, removed heads, one sentence read."""

import html
import json
from pathlib import Path
from typing import Any

from looplm.runs.results import as_markdown

_NAMES = {
    "en": {
        "encoder": "encoder",
        "decoder": "decoder",
        "cross": "cross",
        "none": "no head",
        "noun": "noun",
        "particle": "particle",
        "adjective": "adjective",
        "adverb": "adverb",
        "stem": "stem",
        "ending": "ending",
        "space": "space",
    },
    "ko": {
        "encoder": "인코더",
        "decoder": "디코더",
        "cross": "교차",
        "none": "모두 둠",
        "noun": "명사",
        "particle": "조사",
        "adjective": "형용사",
        "adverb": "부사",
        "stem": "어간",
        "ending": "어미",
        "space": "빈칸",
        "verb to its object": "동사 → 그 목적어",
        "verb to its subject": "동사 → 그 주어",
        "object to its verb": "목적어 → 그 동사",
        "adjective to its noun": "형용사 → 그 명사",
        "verb after that to its object": "that 뒤의 동사 → 그 목적어",
        "syllable before": "바로 앞 음절",
        "particle to its noun": "조사 → 그 명사",
    },
}
_RELATIONS = {
    "en": ["attention", "relation", "seed: read, % (shuffled, %)", "pairs"],
    "ko": ["어텐션", "관계", "시드: 읽음, % (섞음, %)", "쌍"],
}
_WITHOUT = {
    "en": ["seed", "without", "right of {n}", "most wrong: syllables, %"],
    "ko": ["시드", "없앤 헤드", "{n}문장 중 맞음", "가장 많이 틀린 것: 음절, %"],
}
_HEAD = {"en": "{kind}, layer {layer}, head {head}", "ko": "{kind} {layer}층 헤드 {head}"}
_DEAREST = 4
"""Heads of each seed that are shown: those that cost most."""
_MAP = {
    "en": "A row is a syllable that is written, ␣ the space; a cell, how much the last layer's heads read that word, %.",
    "ko": "행은 쓰는 음절(␣는 빈칸)이고, 칸은 마지막 층의 헤드 평균이 그 단어를 읽는 비율(%)이다.",
}
_DARKEST = 30
"""Per cent of the accent colour in a cell that is read alone; more would hide its number."""


_WAYS = {
    "en": ["chosen by", "right, %", "distinct of {draws}", "log-probability"],
    "ko": ["고르는 방법", "맞음, %", "{draws}번 중 서로 다름", "로그 확률"],
}
_WAY_PARTS = {
    "greedy": "탐욕",
    "beam of ": "빔 ",
    "length penalty": "길이 벌점",
    "temperature": "온도",
}
_DIFFER = {
    "en": ["sentence", "greedy", "beam", "the grammar"],
    "ko": ["문장", "탐욕", "빔", "문법"],
}
_DIFFER_COUNT = {
    "en": "Greedy choosing and the first beam differ on {count} of {sentences} sentences.",
    "ko": "탐욕과 첫 번째 빔은 {sentences}문장 중 {count}문장에서 다르다.",
}


def choosing_table(path: Path, name: str, language: str) -> str:
    """Each way of choosing: what is exact, what is distinct, how likely; then where greed and search differ."""
    made = json.loads(path.read_bytes())
    rows = []
    for way in made["ways"]:
        said = way["name"]
        for english, korean in _WAY_PARTS.items() if language == "ko" else ():
            said = said.replace(english, korean)
        rows.append([said, f"{100 * way['right'] / way['n']:.1f}", f"{way['distinct']:.2f}", f"{way['log_probability']:.2f}"])
    draws = max(way["draws"] for way in made["ways"])
    table = as_markdown([column.format(draws=draws) for column in _WAYS[language]], rows)
    told = _DIFFER_COUNT[language].format(count=made["differ"]["count"], sentences=made["sentences"])
    if not made["differ"]["count"]:
        return f"{table}\n\n{told}"
    examples = [[one[key] for key in ("text", "greedy", "beam", "right")] for one in made["differ"]["examples"]]
    return f"{table}\n\n{told}\n\n{as_markdown(_DIFFER[language], examples)}"


def _name(word: str, language: str) -> str:
    return _NAMES[language].get(word, word)


def heads_table(path: Path, name: str, language: str) -> str:
    """For each relation, the head of each seed that reads it most above its control."""
    runs = json.loads(path.read_bytes())["runs"]
    rows = []
    for number, relation in enumerate(runs[0]["relations"]):
        best = [_best(run["relations"][number]["heads"]) for run in runs]
        shares = "; ".join(
            f"{run['run']['seed']}: {100 * head['share']:.0f} ({100 * head['shuffled']:.0f})"
            for run, head in zip(runs, best, strict=True)
        )
        said = [_name(relation["kind"], language), _name(relation["name"], language)]
        rows.append([*said, shares, f"{relation['pairs']:,}"])
    return as_markdown(_RELATIONS[language], rows)


def _best(heads: list[dict[str, Any]]) -> dict[str, Any]:
    return max(heads, key=lambda head: head["share"] - head["shuffled"])


def without_table(path: Path, name: str, language: str) -> str:
    """The heads of each seed whose loss costs most sentences, and which syllables are then wrong."""
    runs = json.loads(path.read_bytes())["runs"]
    rows = []
    for run in runs:
        whole, *without = run["without"]
        dear = sorted(without, key=lambda one: one["right"])[:_DEAREST]
        for one in [whole, *dear]:
            where = {"kind": _name(one["kind"], language), "layer": one["layer"] + 1, "head": one["head"] + 1}
            which = _name("none", language) if one is whole else _HEAD[language].format(**where)
            worst = max(one["wrong"], key=lambda role: one["wrong"][role])
            wrong = f"{_name(worst, language)} {100 * one['wrong'][worst]:.1f}" if one["wrong"][worst] else "0"
            rows.append([str(run["run"]["seed"]), which, str(one["right"]), wrong])
    head = [column.format(n=runs[0]["n"]) for column in _WITHOUT[language]]
    return as_markdown(head, rows)


def attention_map(path: Path, name: str, language: str) -> str:
    """One sentence: what the mean of the last layer's heads reads of each English word for each Korean syllable."""
    made = json.loads(path.read_bytes())
    words = "".join(f"<th>{html.escape(word)}</th>" for word in made["english"])
    rows = []
    for syllable in made["syllables"]:
        heads = syllable["attention"]
        means = [sum(head[n] for head in heads) / len(heads) for n in range(len(made["english"]))]
        cells = "".join(
            f'<td style="background:color-mix(in srgb, var(--md-accent-fg-color) {_DARKEST * mean:.0f}%, transparent)">'
            f"{100 * mean:.0f}</td>"
            for mean in means
        )
        said = syllable["candidates"][0]["said"].replace(" ", "␣")
        rows.append(f"<tr><th>{html.escape(said)}</th>{cells}</tr>")
    table = f"<table><thead><tr><th></th>{words}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="reading">{table}</div>\n\n{_MAP[language]}'


TABLES = {"heads": heads_table, "without": without_table, "choosing": choosing_table, "attention_map": attention_map}
"""By the names that pages ask for."""
