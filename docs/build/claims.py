"""Sentences of the pages that hold numbers, written from committed data: what a test asked, and what halting saved."""

from collections.abc import Sequence
from typing import Any

from looplm.lab.study import read_study_summary
from looplm.lab.verdicts import pooled_rules
from looplm.resources import resource
from looplm.runs.results import groups_of, read_summary, sets_of
from looplm.tasks.addition.depth import read_depth
from looplm.tasks.addition.sets import test_set

_WORDS: dict[str, dict[str, str]] = {
    "en": {
        "same": "All {models} models answer the same {most:,} sums of each digit count and kind{fewer}.",
        "fewer": " ({n:,} at {digits} digits)",
        "repeated": "Few short pairs are held out, so sums repeat at {digits} digits: {kinds}.",
        "kind": "{different} different pairs among the {n:,} {kind} ones",
        "interval": "{n:,} right of {n:,} still leaves room: the 95 % interval of one model begins at {low:.1f} %.",
        "prompt": "On carry-heavy sums of {digits} digits, the smallest fixed number of loops that is about as accurate "
        "(found on these very sums) takes {full} times the work of halting if the prompt runs it too, and {cheap} times if "
        "the prompt halts by itself there as well ({seeds} seeds).",
        "fixed": "On uniform sums of {digits} digits halting saves nothing: {loops} loops for every token are right on {right} "
        "of {n} sums with {work:.0f} block evaluations a sum, prefix stability on {own_right} of {n} with {own_work:.0f} "
        "({seeds} seeds).",
        "range": "{least:.2f} to {most:.2f}",
        "uniform": "uniform",
        "carry-heavy": "carry-heavy",
        "nines": "nines",
    },
    "ko": {
        "same": "모델 {models}개가 모두 자릿수와 종류마다 같은 덧셈 {most:,}문제{fewer}를 푼다.",
        "fewer": "({digits}자리는 {n:,}문제)",
        "repeated": "짧은 수에서는 테스트용 쌍이 적어 {digits}자리 문제가 겹친다. {kinds}뿐이다.",
        "kind": "{kind} {n:,}문제 가운데 서로 다른 쌍은 {different}개",
        "interval": "{n:,}문제를 모두 맞혀도 여지는 남는다. 모델 하나의 95 % 구간은 {low:.1f} %에서 시작한다.",
        "prompt": "받아올림이 많은 {digits}자리 덧셈에서, 정확도가 비슷한 가장 작은 고정 루프 수(바로 이 문제들에서 골랐다)는 "
        "프롬프트까지 그만큼 돌리면 정지 규칙의 {full}배, 프롬프트는 스스로 멈추게 하면 {cheap}배의 계산량이 든다"
        "(시드 {seeds}개).",
        "fixed": "균등 추출한 {digits}자리 덧셈에서는 정지 규칙이 줄이는 것이 없다. 모든 토큰을 {loops}루프씩 돌리면 "
        "{n}문제 가운데 {right}개를 맞히는 데 문제마다 블록 계산 {work:.0f}번이 들고, 앞부분 안정은 {own_right}개를 "
        "맞히는 데 {own_work:.0f}번이 든다(시드 {seeds}개).",
        "range": "{least:.2f}-{most:.2f}",
        "uniform": "균등 추출",
        "carry-heavy": "받아올림이 많은",
        "nines": "9가 이어진",
    },
}

_FEW = 6
"""Digits above which pairs are so many that a drawn set hardly holds one twice."""


def tested(name: str, language: str) -> str:
    """Which sums a committed summary rests on, and how many of them are different."""
    words = _WORDS[language]
    results = groups_of(read_summary(resource("docs/data") / f"{name}.json")["results"])[name]
    cells = results[0]["cells"]
    most = max(cell["n"] for cell in cells)
    fewer = {cell["size"]: cell["n"] for cell in cells if cell["n"] < most}
    shown = "".join(words["fewer"].format(digits=digits, n=n) for digits, n in fewer.items())
    told = [words["same"].format(models=len(results), most=most, fewer=shown)]
    told += _repeated(cells, sets_of(results), results[0]["evaluation"]["seed"], words)
    lows = [cell["low"] for cell in cells if cell["correct"] == cell["n"] == most]
    if lows:
        told.append(words["interval"].format(n=most, low=100 * min(lows)))
    return " ".join(told)


def _repeated(cells: Sequence[dict[str, Any]], kinds: Sequence[str], seed: int, words: dict[str, str]) -> list[str]:
    """A sentence for each digit count at which less than half of a set are different pairs, in either order."""
    told = []
    for digits in dict.fromkeys(cell["size"] for cell in cells if cell["size"] <= _FEW):
        told_of = []
        for kind in kinds:
            n = next(cell["n"] for cell in cells if (cell["size"], cell["set"]) == (digits, kind))
            different = len({frozenset(pair) for pair in test_set(kind, digits, n, seed).numbers()})
            if 2 * different < n:
                told_of.append(words["kind"].format(different=different, n=n, kind=words[kind]))
        if told_of:
            told.append(words["repeated"].format(digits=digits, kinds=", ".join(told_of)))
    return told


def saved(name: str, language: str) -> str:
    """How much work halting saved a parallel adder, against a full and a cheap prompt, and where it saved none."""
    words = _WORDS[language]
    results = read_depth(resource("docs/data") / f"{name}.json")
    spans = {}
    for prompt in ("full_prompt", "cheap_prompt"):
        times = [result["saved"][prompt]["times_the_work"] for result in results]
        spans[prompt] = words["range"].format(least=min(times), most=max(times))
    digits = results[0]["evaluation"]["digits"]
    first = words["prompt"].format(digits=digits, full=spans["full_prompt"], cheap=spans["cheap_prompt"], seeds=len(results))
    return f"{first} {_fixed(digits, words)}"


def _fixed(digits: int, words: dict[str, str]) -> str:
    """The cheapest fixed number of loops that is as accurate as prefix stability on uniform sums, from the study of gates."""
    summary, where = read_study_summary(resource("docs/data") / "study-gate.json"), {"recipe": "B", "gate": "right"}
    rules = {
        rule: found for (rule, kind, of), found in pooled_rules(summary, where).items() if (kind, of) == ("uniform", digits)
    }
    right, n, work = rules["prefix stability"]
    name, fixed = min(
        ((rule, found) for rule, found in rules.items() if rule.startswith("fixed ") and found[0] >= right),
        key=lambda item: item[1][2],
    )
    assert fixed[2] < work, "halting does save work on uniform sums: the sentence is to be written anew"
    seeds = len({cell["seed"] for cell in summary["cells"]})
    return words["fixed"].format(
        digits=digits,
        loops=name.removeprefix("fixed "),
        right=fixed[0],
        n=n,
        work=fixed[2],
        own_right=right,
        own_work=work,
        seeds=seeds,
    )
