"""Headers of tables in the language of a page, phrase by phrase."""

import re
from collections.abc import Sequence

from looplm.runs.results import as_markdown

_KOREAN = {
    "all-scored control": "모두 채점 대조군",
    "bits": "비트",
    "carry-heavy": "받아올림이 많은 문제",
    "cheap prompt": "조기 정지 프롬프트",
    "clauses": "절",
    "digits": "자릿수",
    "first control": "첫 루프만 대조군",
    "full prompt": "전체 프롬프트",
    "loops": "루프",
    "looped control": "루프 대조군",
    "loops per chain place": "사슬 한 자리당 루프",
    "no-restarts control": "재출발 없음 대조군",
    "nines": "9가 이어진 문제",
    "of": "전체",
    "offer": "내놓는 것",
    "one-layer control": "한 층 대조군",
    "origin": "원래 측정",
    "pieces": "조각",
    "right": "맞음",
    "right, %": "맞음, %",
    "rope control": "RoPE 대조군",
    "seed": "시드",
    "seen": "본 짝",
    "shuffled": "순서를 섞었을 때",
    "Spearman": "Spearman",
    "static control": "고정 대조군",
    "target": "목표",
    "this model": "이 모델",
    "times": "배",
    "uniform": "균등 추출",
    "unseen": "처음 보는 짝",
    "work": "계산량",
    "wrong": "틀림",
}
"""Whole phrases of a table's header."""


def table_in(header: Sequence[str], rows: Sequence[Sequence[str]], language: str) -> str:
    """A table whose header is in the page's language, phrase by phrase."""
    if language == "ko":
        header = [in_korean(cell) for cell in header]
        rows = [[cell.replace("(worst ", "(최저 ") for cell in row] for row in rows]
    return as_markdown(header, rows)


def in_korean(cell: str) -> str:
    """A header's cell in Korean.

    Raises:
        ValueError: if it has none.
    """
    if cell in _KOREAN:
        return _KOREAN[cell]
    if count := re.fullmatch(r"(\d+) seeds", cell):
        return f"시드 {count[1]}개"
    if order := re.fullmatch(r"(\d+)-gram", cell):
        return f"{order[1]}-그램"
    if cell.startswith("`"):
        return cell
    for mark in (": ", ", "):
        if mark in cell:
            return mark.join(map(in_korean, cell.split(mark, 1)))
    raise ValueError(f"the table header {cell!r} has no Korean: give it one in docs/build/headers.py.")
