"""What `make gpu` and `looplm bench` measured, as tables: from docs/data/bench-*.json and nothing else."""

import json
from typing import Any

from looplm.resources import resource

WAYS = ("eager", "compiled", "CUDA graph", "A", "B")
_HEAD = {
    "en": {
        "decode": "| texts | loops, mean (most) | eager | compiled | CUDA graph | kernel A | kernel B | graph / best kernel |",
        "energy": "| texts | loops, mean | eager | compiled | CUDA graph | kernel A | kernel B |",
        "adder": "| sums at once | torch, µs a token | fused kernels, µs a token | times faster |",
    },
    "ko": {
        "decode": "| 글 | 루프, 평균(상한) | 즉시 실행 | 컴파일 | CUDA 그래프 | 커널 A | 커널 B | 그래프 / 빠른 커널 |",
        "energy": "| 글 | 루프, 평균 | 즉시 실행 | 컴파일 | CUDA 그래프 | 커널 A | 커널 B |",
        "adder": "| 동시에 푸는 덧셈 | torch, 토큰당 µs | 융합 커널, 토큰당 µs | 몇 배 빠른가 |",
    },
}
_MADE = {
    "en": "*{device}, PyTorch {torch}, Triton {triton}, commit {commit}; {passed} of {tests} tests of the kernels passed on it "
    "(`docs/data/{name}.json`).*",
    "ko": "{device}, PyTorch {torch}, Triton {triton}, 커밋 {commit}. 이 GPU에서 커널 테스트 {tests}개 가운데 {passed}개가 "
    "통과했다(`docs/data/{name}.json`).",
}
_LOOPS = 12


_CLAIMS_HEAD = {
    "en": "| measured | texts | one | other | one, ms | other, ms | one / other |",
    "ko": "| 측정한 것 | 글 | 한쪽 | 다른 쪽 | 한쪽, ms | 다른 쪽, ms | 한쪽 / 다른 쪽 |",
}
_CLAIMS_MADE = {
    "en": "*{device}, {threads} thread, PyTorch {torch}, commit {commit}, {rounds} rounds (`docs/data/{name}.json`).*",
    "ko": "{device}, 스레드 {threads}개, PyTorch {torch}, 커밋 {commit}, {rounds}라운드(`docs/data/{name}.json`).",
}
_KOREAN = {
    "all loops": "모든 루프",
    "compiled": "컴파일",
    "decode": "디코딩",
    "equal work": "같은 계산량의 훈련",
    "first-light": "first-light의 훈련",
    "halting": "정지",
    "looped": "루프 모델",
    "norms": "노름, 앞뒤 계산",
    "plain GPT": "일반 GPT",
    "prefill": "프리필",
    "rows wait": "행이 서로 기다림",
    "torch's RMSNorm": "torch의 RMSNorm",
}
_ENGLISH = {
    "equal work": "a step, equal work",
    "first-light": "a step of first-light",
    "norms": "norms, forward and backward",
}


def claims_table(name: str, language: str) -> str:
    """Every ratio of `looplm bench NAME`, with the times that it is of."""
    measured = json.loads((resource("docs/data") / f"bench-{name}.json").read_text(encoding="utf-8"))
    words = _KOREAN if language == "ko" else _ENGLISH
    lines = [_CLAIMS_HEAD[language], "|---|---:|---|---|---:|---:|---:|"]
    for row in measured["rows"]:
        what = words.get(row["what"], row["what"]) + (f", {words.get('compiled', 'compiled')}" if row.get("compiled") else "")
        if "mean_loops" in row:
            what += f", {row['mean_loops']:.1f} / {row['most_loops']}"
        for claim, spread in row["ratios"].items():
            one, other = claim.split(" / ")
            times = [_number(1000 * row["seconds"][way]["median"]) for way in (one, other)]
            cells = [what, str(row["batch"]), words.get(one, one), words.get(other, other), *times, _ratio(spread)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _CLAIMS_MADE[language].format(**measured["machine"], name=f"bench-{name}")])


def gpu_table(argument: str, language: str) -> str:
    """A table of `make gpu`, asked for as `NAME:KIND`: decode (µs a token), energy (mJ) or adder."""
    name, _, kind = argument.partition(":")
    measured = json.loads((resource("docs/data") / f"{name}.json").read_text(encoding="utf-8"))
    head = _HEAD[language][kind]
    rows = {"decode": _decode, "energy": _energy, "adder": _adder}[kind](measured["rows"])
    line = "|" + "---:|" * (head.count("|") - 1)
    return "\n".join([head, line, *(f"| {' | '.join(row)} |" for row in rows), "", _made(name, measured, language)])


def _made(name: str, measured: dict[str, Any], language: str) -> str:
    tests = [row for row in measured["rows"] if row["step"] == "tests"]
    passed = sum(row["outcome"] == "passed" for row in tests)
    return _MADE[language].format(**measured["machine"], name=name, passed=passed, tests=len(tests))


def _decode(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            str(row["batch"]),
            f"{row['mean_loops']:.1f} ({_LOOPS})",
            *(_number(row["microseconds_per_token"].get(way)) for way in WAYS),
            _ratio(row["ratios"][f"CUDA graph / {'B' if 'CUDA graph / B' in row['ratios'] else 'A'}"]),
        ]
        for row in _decoded(rows)
    ]


def _energy(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [str(row["batch"]), f"{row['mean_loops']:.1f}", *(_number(_thousand(row["joules_per_token"].get(way))) for way in WAYS)]
        for row in _decoded(rows)
    ]


def _adder(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [str(row["sums"]), *(_number(v) for v in row["microseconds_per_token"].values()), _ratio(*row["ratios"].values())]
        for row in rows
        if row.get("adder")
    ]


def _decoded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["step"].startswith("decode")]


def _thousand(value: float | None) -> float | None:
    return None if value is None else 1000 * value


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(spread: dict[str, Any]) -> str:
    """A median with its least and greatest round, in brackets what is undecided because they stand on both sides of 1."""
    told = f"{spread['median']:.2f} [{spread['low']:.2f}, {spread['high']:.2f}]"
    return told if spread["decided"] else f"({told})"
