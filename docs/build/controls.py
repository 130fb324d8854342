"""The tables of a summary that `looplm controls` wrote: accuracy of a recipe and its controls, and what its slots read."""

from pathlib import Path
from statistics import fmean

from looplm.runs.results import as_markdown, groups_of, pooled_cells, read_summary, sets_of

_HEADER = {
    "en": ["model", "right, %", "worst seed", "questions", "seeds"],
    "ko": ["모델", "맞음, %", "최저 시드", "문항", "시드"],
}
_NAMES = {
    "": {"en": "the recipe", "ko": "레시피"},
    "no-connection-at-test": {"en": "at test: C = 0", "ko": "테스트할 때 C = 0"},
    "shuffled-connection-at-test": {"en": "at test: C shuffled", "ko": "테스트할 때 C의 원소를 섞음"},
    "random-connection-at-test": {"en": "at test: a drawn C", "ko": "테스트할 때 무작위 C"},
    "no-rereading-at-test": {"en": "at test: no re-reading", "ko": "테스트할 때 다시 읽지 않음"},
    "no-connection": {"en": "trained with C = 0", "ko": "C = 0으로 훈련"},
    "frozen": {"en": "trained with a drawn C that stays", "ko": "훈련하지 않는 무작위 C로 훈련"},
    "pure": {"en": "trained without re-reading", "ko": "다시 읽지 않고 훈련"},
    "latest-animal": {"en": "the rule: latest animal of the kind", "ko": "규칙: 같은 종에서 마지막에 말한 동물"},
}


_READINGS = {
    "en": ["reading", "the asked one's kind", "another of that kind", "its colour"],
    "ko": ["읽기", "질문한 것의 종", "같은 종의 다른 것", "그 색"],
}


def controls_table(path: Path, name: str, language: str) -> str:
    """Accuracy of each group, seeds pooled.

    Raises:
        ValueError: if a control has no name in this language.
    """
    rows = []
    for preset, results in groups_of(read_summary(path)["results"]).items():
        control = preset.removeprefix(name).removeprefix("-")
        if control not in _NAMES:
            raise ValueError(f"the control {control!r} has no name: give it one in docs/build/controls.py.")
        (cell,) = pooled_cells(results, sets_of(results)[0])
        shares = [_percent(cell[which]) for which in ("accuracy", "worst")]
        numbers = [*shares, f"{cell['n']:,}", str(cell["seeds"])]
        rows.append([_NAMES[control][language], *numbers])
    return as_markdown(_HEADER[language], rows)


def readings_table(path: Path, name: str, language: str) -> str:
    """How much of each reading goes to each needed fact, in percent: the mean over slots, questions and seeds."""
    found = [result["readings"] for result in groups_of(read_summary(path)["results"])[name]]
    rows = []
    for number, shares in enumerate(zip(*found, strict=True), 1):
        means = [fmean(seed) for seed in zip(*shares, strict=True)]
        rows.append([str(number), *(f"{100 * mean:.0f}" for mean in means)])
    return as_markdown([f"{column}, %" if place else column for place, column in enumerate(_READINGS[language])], rows)


def _percent(share: float) -> str:
    """100 only for all."""
    return "100" if share == 1 else f"{min(100 * share, 99.9):.1f}"
