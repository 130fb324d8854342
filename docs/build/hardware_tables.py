"""The tables of the hardware page: from profiles, sizes, what the plans say, and what was measured."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from looplm.hardware.plan import decode_speed, make_plan
from looplm.hardware.profile import load_profile, shipped_devices
from looplm.hardware.setting import Setting, choose, largest_generation_batch, training_peak
from looplm.hardware.units import human
from looplm.hardware.workload import size_names
from looplm.resources import resource
from looplm.spec import oracle
from looplm.train.workloads import find_workload

_WORDS = {
    "en": {
        "device": "device",
        "memory": "memory",
        "bandwidth": "bandwidth",
        "cache": "last cache",
        "power": "power",
        "target": "kernels built for",
        "shared": "shared memory",
        "sources": "Where each number comes from",
        "size": "size",
        "what": "what",
        "plan": "the plan",
        "counted": "counted",
        "parameters": "parameters",
        "peak": "memory of a step, {rows} rows of {tokens} tokens{again}, float32",
        "again": ", layers computed again",
        "time": "{steps} steps of {rows} rows, on {device}",
        "part": "the same, if a step were {rows} rows",
        "decode": "decoding one row on {device}",
        "days": "at least {days} days",
        "most": "at most {speed} tokens/s",
        "rows": "{rows} rows",
        "loops": "loops",
        "predicted": "predicted",
        "measured": "measured",
        "process": "{size}, {rows} rows: growth of the process",
        "pass": "pass",
        "share": "share of the roofline reached: least, median, most",
        "training": "training",
        "generation": "generation",
        "batch": "rows",
        "this": "this",
        "against": "against",
        "of_loops": "{loops} loops",
        "faster": "times as fast: least, median, most",
        "undecided": "undecided",
        "no": "no",
        "with": "{rows} (again)",
    },
    "ko": {
        "device": "장치",
        "memory": "메모리",
        "bandwidth": "대역폭",
        "cache": "마지막 캐시",
        "power": "전력",
        "target": "커널 빌드 대상",
        "shared": "공유 메모리",
        "sources": "수마다 출처",
        "size": "크기",
        "what": "항목",
        "plan": "계획",
        "counted": "계산한 값",
        "parameters": "파라미터",
        "peak": "한 스텝의 메모리, {tokens}토큰 {rows}행{again}, float32",
        "again": ", 층을 다시 계산",
        "time": "{device}에서 {rows}행짜리 {steps}스텝",
        "part": "한 스텝이 {rows}행이라면",
        "decode": "{device}에서 한 행 디코딩",
        "days": "적어도 {days}일",
        "most": "많아야 {speed} 토큰/초",
        "rows": "{rows}행",
        "loops": "루프",
        "predicted": "예측",
        "measured": "측정",
        "process": "{size}, {rows}행: 프로세스가 늘어난 양",
        "pass": "실행",
        "share": "지붕선에 이른 비율: 최소, 중앙, 최대",
        "training": "훈련",
        "generation": "생성",
        "batch": "행 수",
        "this": "대상",
        "against": "비교 상대",
        "of_loops": "루프 {loops}번",
        "faster": "몇 배 빠른가: 최소, 중앙, 최대",
        "undecided": "판정 불가",
        "no": "안 됨",
        "with": "{rows}(재계산)",
    },
}
_PASSES = {
    "en": {},
    "ko": {
        "training": "훈련",
        "prefill": "프리필",
        "decode": "디코드",
        "norms": "정규화",
        "equal work": "같은 계산량",
        "halting": "정지 규칙",
        "all loops": "모든 루프",
        "rows wait": "기다리는 행",
        "looped": "루프 모델",
        "plain GPT": "일반 GPT",
        "torch's RMSNorm": "torch의 RMSNorm",
        "compiled": "컴파일",
    },
}
"""What is timed, and what is timed against what."""


def hardware(part: str, language: str) -> str:
    """One table of the page: profiles, claims, fit, memory, speed, generation or training."""
    tables: dict[str, Callable[[dict[str, str]], str]] = {
        "profiles": profiles,
        "claims": claims,
        "fit": fit,
        "memory": memory,
        "speed": speed,
        "generation": clock("bench-generation"),
        "training": clock("bench-training"),
    }
    if part not in tables:
        raise ValueError(f"a page asks for the hardware table {part!r}; there are {', '.join(tables)}.")
    return tables[part](_WORDS[language] | {"language": language})


def profiles(words: dict[str, str]) -> str:
    """Devices side by side, and below them the source of each number."""
    head = [words["device"], words["memory"], words["bandwidth"], words["cache"], "float32", "bfloat16", words["power"]]
    rows, sources = [], []
    for profile in shipped_devices():
        half, budget = profile.bfloat16_tflop_per_s, profile.kernels
        rows.append(
            [
                f"**{profile.name}**<br>{profile.title}",
                f"{profile.memory_gib:g} GiB",
                f"{profile.memory_gb_per_s:g} GB/s",
                f"{profile.cache_mib:g} MiB" if profile.cache_mib else "–",
                f"{profile.float32_tflop_per_s:g} TFLOP/s",
                f"{half:g} TFLOP/s" if half else "–",
                f"{profile.power_w:g} W" if profile.power_w else "–",
                f"{budget.target}, {budget.shared_memory_bytes / 1024:g} KiB" if budget else "–",
            ]
        )
        sources += [f"    - **{profile.name}**: {profile.source}"]
        sources += [f"        - `{key}`: {source}" for key, source in profile.sources.items()]
    table = _table([*head, words["target"]], rows)
    return f'{table}\n\n??? note "{words["sources"]}"\n\n' + "\n".join(sources)


def claims(words: dict[str, str]) -> str:
    """What a plan says of a size beside what is counted; sizes of which no plan says anything, last."""
    said = tomllib.loads((resource("docs/data") / "others-hardware.toml").read_text(encoding="utf-8"))
    rows = []
    for name, claim in said.items():
        profile = load_profile(claim["profile"])
        size = replace(find_workload(name), context_tokens=claim["context_tokens"], batch_size=claim["rows_of_a_step"])
        setting = Setting(rows=claim["rows"], parts=claim["rows_of_a_step"] // claim["rows"], recompute=claim["recompute"])
        tokens = claim["steps"] * claim["rows_of_a_step"] * claim["context_tokens"]
        plan = make_plan(replace(size, train_tokens=tokens), profile, recompute=claim["recompute"])
        days = next(line.value for line in plan.lines if line.what == "the whole run")
        decode = decode_speed(find_workload(name), profile, 1).tokens_per_s
        again = words["again"] if claim["recompute"] else ""
        peak = words["peak"].format(rows=claim["rows"], tokens=f"{claim['context_tokens']:,}", again=again)
        time = words["time"].format(steps=f"{claim['steps']:,}", rows=claim["rows_of_a_step"], device=profile.name)
        quarter = days * claim["rows"] / claim["rows_of_a_step"]
        rows += [
            [f"**{name}**", words["parameters"], claim["parameters"], _parameters(name)],
            ["", peak, claim["training_memory"], human(training_peak(size, setting), "bytes")],
            ["", time, claim["training_time"], words["days"].format(days=f"{days:.0f}")],
            ["", words["part"].format(rows=claim["rows"]), claim["training_time"], words["days"].format(days=f"{quarter:.1f}")],
            ["", words["decode"].format(device=profile.name), claim["decode"], words["most"].format(speed=f"{decode:,.0f}")],
        ]
    for name in [*size_names(), "first-light"]:
        if name not in said:
            rows.append([f"**{name}**", words["parameters"], "–", _parameters(name)])
    return _table([words["size"], words["what"], words["plan"], words["counted"]], rows)


def fit(words: dict[str, str]) -> str:
    """Rows that one training step can hold at a time, and rows that can be generated together, for each size and device."""
    devices = shipped_devices()
    rows = []
    for name in ("small", "medium", "large", "looplm-384", "first-light"):
        size = find_workload(name)
        for kind in ("training", "generation"):
            cells = []
            for profile in devices:
                if kind == "generation":
                    most = largest_generation_batch(size, profile, profile.use.generation_dtype)
                    cells.append(f"{most:,}" if most else words["no"])
                    continue
                setting, again = choose(size, profile), choose(size, profile, recompute=True)
                with_again = words["with"].format(rows=again.rows) if again else words["no"]
                cells.append(str(setting.rows) if setting else with_again)
            rows.append([f"**{name}**" if kind == "training" else "", words[kind], *cells])
    return _table([words["size"], "", *(profile.name for profile in devices)], rows)


def memory(words: dict[str, str]) -> str:
    """Predicted and measured bytes of a training step, from docs/data/hardware.json."""
    found = json.loads((resource("docs/data") / "hardware.json").read_text(encoding="utf-8"))
    named = [(f"{line['size']}, {words['rows'].format(rows=line['rows'])}", line) for line in found["memory"]]
    named.append((words["process"].format(**found["process"]), found["process"]))
    rows = []
    for name, line in named:
        predicted, measured = line["predicted_bytes"], line["measured_bytes"]
        rows.append([name, human(predicted, "bytes"), human(measured, "bytes"), f"{predicted / measured - 1:+.1%}"])
    return _table([words["what"], words["predicted"], words["measured"], ""], rows)


def speed(words: dict[str, str]) -> str:
    """How near the measured passes came to the roofline of the machine."""
    found = json.loads((resource("docs/data") / "hardware.json").read_text(encoding="utf-8"))
    rows = []
    for kind in ("training", "prefill", "decode"):
        reached = sorted(line["roofline_s"] / line["measured_s"] for line in found["speed"] if line["pass"] == kind)
        shares = ", ".join(f"{share:.1%}" for share in (reached[0], reached[len(reached) // 2], reached[-1]))
        rows.append([_PASSES[words["language"]].get(kind, kind), shares])
    return _table([words["pass"], words["share"]], rows)


def clock(name: str) -> Callable[[dict[str, str]], str]:
    """What a benchmark of a CPU compared, a line for each ratio."""

    def table(words: dict[str, str]) -> str:
        names, rows = _PASSES[words["language"]], []
        for row in json.loads((resource("docs/data") / f"{name}.json").read_text(encoding="utf-8"))["rows"]:
            what = ", ".join(names.get(word, word) for word in (row["what"], *["compiled"] * row.get("compiled", False)))
            for pair, spread in row["ratios"].items():
                slow, fast = (names.get(one, one) + _loops(row, one, words) for one in pair.split(" / "))
                found = f"{spread['low']:.2f}, **{spread['median']:.2f}**, {spread['high']:.2f}"
                found += "" if spread["decided"] else f" ({words['undecided']})"
                rows.append([what, str(row["batch"]), fast, slow, found])
        return _table([words["pass"], words["batch"], words["this"], words["against"], words["faster"]], rows)

    return table


def _loops(row: dict[str, Any], contender: str, words: dict[str, str]) -> str:
    """Loops of a token, behind a contender that has them."""
    loops = {"halting": "mean_loops", "rows wait": "mean_loops", "all loops": "most_loops"}.get(contender)
    return f" ({words['of_loops'].format(loops=f'{row[loops]:.3g}')})" if loops else ""


def _parameters(name: str) -> str:
    return f"{sum(oracle('hardware').parameters(find_workload(name).model).values()):,}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
