"""What a study's numbers say: its verdicts and tables, from the summary alone.

A verdict compares models of the same seed. With few seeds no test of significance would mean much, so the rule is
plain: one level is better only if it is better by the margin in every seed, there is no difference only if no seed
shows one of the margin, and all else is undecided.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from looplm.lab.study import Question, Study

Language = Literal["en", "ko"]
Outcome = Literal["better", "worse", "same", "undecided", "holds", "some", "fails"]
Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """The answer to a question, for one combination of the factors that it leaves open."""

    question: Question
    where: Mapping[str, str]
    outcome: Outcome
    seeds: int
    mean: float
    """Of the asked value: that of the level, or of the models that the bound is asked of."""
    against: float | None
    """The same of the other level."""
    least: float
    """Of the differences, or of the values."""
    most: float
    passed: int = 0
    """Seeds in which the bound holds."""


def verdicts(study: Study, summary: Summary) -> list[Verdict]:
    """An answer to every question of a study that its cells can answer."""
    return [verdict for question in study.questions for verdict in _answers(question, summary["cells"])]


def _answers(question: Question, cells: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
    asked = [cell for cell in cells if _matches(cell["levels"], question) and question.value in cell["values"]]
    groups: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for cell in asked:
        others = tuple((factor, level) for factor, level in cell["levels"].items() if factor != question.factor)
        groups.setdefault(others, []).append(cell)
    for others, group in groups.items():
        where = {factor: level for factor, level in others if len({c["levels"][factor] for c in asked}) > 1}
        if question.factor is None:
            yield _bounded(question, where, [cell["values"][question.value] for cell in group])
            continue
        by_level: dict[str, dict[int, float]] = {}
        for cell in group:
            by_level.setdefault(cell["levels"][question.factor], {})[cell["seed"]] = cell["values"][question.value]
        one, other = (by_level.get(str(level), {}) for level in (question.level, question.against))
        if paired := sorted(one.keys() & other.keys()):
            yield _compared(question, where, [one[seed] for seed in paired], [other[seed] for seed in paired])


def _matches(levels: Mapping[str, str], question: Question) -> bool:
    wanted = {factor: (level,) if isinstance(level, str) else level for factor, level in question.where.items()}
    return all(levels[factor] in allowed for factor, allowed in wanted.items())


def _compared(question: Question, where: Mapping[str, str], one: list[float], other: list[float]) -> Verdict:
    differences = [a - b for a, b in zip(one, other, strict=True)]
    gains = differences if question.higher_is_better else [-difference for difference in differences]
    outcome: Outcome = "undecided"
    if all(abs(gain) < question.margin for gain in gains) or not any(gains):
        outcome = "same"
    elif min(gains) >= question.margin and min(gains) > 0:
        outcome = "better"
    elif max(gains) <= -question.margin and max(gains) < 0:
        outcome = "worse"
    return Verdict(question, where, outcome, len(one), fmean(one), fmean(other), min(differences), max(differences))


def _bounded(question: Question, where: Mapping[str, str], values: list[float]) -> Verdict:
    least, most = question.at_least, question.at_most
    passed = sum((least is None or value >= least) and (most is None or value <= most) for value in values)
    outcome: Outcome = "holds" if passed == len(values) else "some" if passed else "fails"
    return Verdict(question, where, outcome, len(values), fmean(values), None, min(values), max(values), passed)


_SENTENCES: dict[Language, dict[Outcome, str]] = {
    "en": {
        "better": "**{level}** is better than {other}: {mean} against {against}; by {least} to {most}, {seeds} seeds.",
        "worse": "**{other}** is better than {level}: {against} against {mean}; by {least} to {most}, {seeds} seeds.",
        "same": "**no difference** of {margin}: {level} {mean}, {other} {against}; by {least} to {most}, {seeds} seeds.",
        "undecided": "**undecided**: {level} {mean}, {other} {against}; by {least} to {most}, {seeds} seeds.",
        "holds": "**yes**, with all {seeds} seeds: {least} to {most}.",
        "some": "**with {passed} of {seeds}** seeds: {least} to {most}.",
        "fails": "**no**, with none of {seeds} seeds: {least} to {most}.",
    },
    "ko": {
        "better": "**{level}** 쪽이 {other}보다 낫다. {mean} 대 {against} ({least}에서 {most}, 시드 {seeds}개).",
        "worse": "**{other}** 쪽이 {level}보다 낫다. {against} 대 {mean} ({least}에서 {most}, 시드 {seeds}개).",
        "same": "{margin} 이상의 **차이가 없다**. {level} {mean}, {other} {against} ({least}에서 {most}, 시드 {seeds}개).",
        "undecided": "**판가름할 수 없다**. {level} {mean}, {other} {against} ({least}에서 {most}, 시드 {seeds}개).",
        "holds": "시드 {seeds}개 모두에서 **그렇다**. {least}에서 {most}까지.",
        "some": "시드 {seeds}개 가운데 **{passed}개**에서 그렇다. {least}에서 {most}까지.",
        "fails": "시드 {seeds}개 어디에서도 **그렇지 않다**. {least}에서 {most}까지.",
    },
}


def verdict_text(verdict: Verdict, language: Language = "en", korean: Mapping[str, str] | None = None) -> str:
    """A verdict as a sentence of Markdown, led by the levels that it is about."""
    question, names = verdict.question, (korean or {}) if language == "ko" else {}
    is_difference = verdict.against is not None
    sentence = _SENTENCES[language][verdict.outcome].format(
        level=names.get(str(question.level), question.level),
        other=names.get(str(question.against), question.against),
        mean=_number(verdict.mean, question.kind),
        against=_number(verdict.against or 0.0, question.kind),
        least=_number(verdict.least, question.kind, is_difference),
        most=_number(verdict.most, question.kind, is_difference),
        margin=_points(question.margin, question.kind, language),
        seeds=verdict.seeds,
        passed=verdict.passed,
    )
    where = ", ".join(f"{names.get(factor, factor)} {names.get(level, level)}" for factor, level in verdict.where.items())
    return f"{where}: {sentence}" if where else sentence[0].upper() + sentence[1:]


def verdict_lines(study: Study, summary: Summary, language: Language = "en") -> list[tuple[str, list[str]]]:
    """Each question with its answers."""
    lines: dict[str, list[str]] = {question.ask[language]: [] for question in study.questions}
    for verdict in verdicts(study, summary):
        lines[verdict.question.ask[language]].append(verdict_text(verdict, language, study.korean))
    return list(lines.items())


def study_table(study: Study, summary: Summary, language: Language = "en") -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row for each combination of levels, the mean over seeds with its least and most."""
    factors, names = list(study.factors), study.korean if language == "ko" else {}
    header = [
        *(names.get(factor, factor) for factor in factors),
        *(column.label[language] for column in study.columns),
        {"en": "seeds", "ko": "시드"}[language],
    ]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for cell in summary["cells"]:
        groups.setdefault(tuple(cell["levels"][factor] for factor in factors), []).append(cell)
    rows = []
    for levels, cells in groups.items():
        row = [names.get(level, level) for level in levels]
        for column in study.columns:
            values = [cell["values"][column.value] for cell in cells if column.value in cell["values"]]
            row.append(_spread(values, column.kind) if values else "")
        rows.append([*row, str(len(cells))])
    return header, rows


def rules_table(
    study: Study, summary: Summary, where: Mapping[str, str], sets: Sequence[tuple[str, int]], language: Language = "en"
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: for each halting rule, problems solved in percent / block evaluations a problem, seeds pooled.

    Args:
        study: with the measure `rules`.
        summary: of it.
        where: the cells that are meant.
        sets: held-out set and size of each column.
        language: of the header.
    """
    names = study.korean if language == "ko" else {}
    header = [{"en": "rule", "ko": "규칙"}[language]]
    header += [f"{size_label(study, size, language)}, {names.get(name, name)}" for name, size in sets]
    pooled = pooled_rules(summary, where)
    rows = []
    for rule in dict.fromkeys(rule for rule, _, _ in pooled):
        cells = [pooled[rule, name, size] for name, size in sets]
        rows.append([rule, *(f"{_number(correct / n, 'percent')} / {work:.0f}" for correct, n, work in cells)])
    return header, rows


def values_table(study: Study, summary: Summary, prefix: str, language: Language = "en") -> tuple[list[str], list[list[str]]]:
    """Header and rows: the values named PREFIX, what, size, for each combination of levels; mean, least and most over seeds."""
    korean = study.korean if language == "ko" else {}
    names = list(dict.fromkeys(n for cell in summary["cells"] for n in cell["values"] if n.startswith(prefix)))
    factors = list(summary["cells"][0]["levels"])
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for cell in summary["cells"]:
        groups.setdefault(tuple(cell["levels"].values()), []).append(cell["values"])
    rows = [
        [*levels, *(_spread([v[n] for v in values], "number") for n in names), str(len(values))]
        for levels, values in groups.items()
    ]

    def label(name: str) -> str:
        what, _, size = name.removeprefix(prefix).partition(".")
        return f"{korean.get(what, what)}, {size_label(study, size, language)}"

    return [*factors, *map(label, names), {"en": "seeds", "ko": "시드"}[language]], rows


def size_label(study: Study, size: int | str, language: Language = "en") -> str:
    """A size of the held-out problems with what it counts; in Korean, a counting word follows its number without a space."""
    axis = study.axis
    return f"{size}{study.korean[axis]}" if language == "ko" and axis in study.korean else f"{size} {axis}"


def pooled_rules(summary: Summary, where: Mapping[str, str]) -> dict[tuple[str, str, int], tuple[int, int, float]]:
    """(rule, set, size) → (right, of how many, work a problem) of the cells with these levels, seeds pooled."""
    pooled: dict[tuple[str, str, int], tuple[int, int, float]] = {}
    for cell in summary["cells"]:
        if where.items() <= cell["levels"].items():
            for row in (row for notes in cell["notes"].values() for row in notes.get("rows", ())):
                key = (row["rule"], row["set"], row["size"])
                correct, n, work = pooled.get(key, (0, 0, 0.0))
                total = n + row["n"]
                pooled[key] = (correct + row["correct"], total, (work * n + row["work"] * row["n"]) / total)
    return pooled


def _spread(values: Sequence[float], kind: str) -> str:
    mean, least, most = (_number(value, kind) for value in (fmean(values), min(values), max(values)))
    return mean if least == most else f"{mean} ({least}–{most})"


def _number(value: float, kind: str, signed: bool = False) -> str:
    if kind == "percent":
        shown = f"{100 * value:+.1f}" if signed else f"{min(100 * value, 99.9) if value < 1 else 100:.1f}"
        return shown.replace("100.0", "100")
    shown = f"{value:+,.0f}" if signed else f"{value:,.0f}"
    return shown if abs(value) >= 10 else f"{value:{'+' if signed else ''}.3g}"


def _points(margin: float, kind: str, language: Language) -> str:
    if kind == "number":
        return f"{margin:g}"
    return f"{100 * margin:g}점" if language == "ko" else f"{100 * margin:g} point{'s' * (margin != 0.01)}"
