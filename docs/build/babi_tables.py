"""The twenty tasks of bAbI in a table, from a summary that `looplm controls` wrote: a model beside what was hoped for."""

from pathlib import Path

from looplm.runs.results import Result, as_markdown, read_summary

_LEAST = 0.9
"""What the plan hoped that 15 of 20 tasks reach."""
_HOPED = {16: "≥ 85", 19: "70-85"}
_SMALL = 3
"""The task whose stories are few."""
_NAMES = {
    1: ("one fact", "사실 하나"),
    2: ("two facts", "사실 둘"),
    3: ("three facts", "사실 셋"),
    4: ("two arguments", "논항 둘"),
    5: ("three arguments", "논항 셋"),
    6: ("yes or no", "예와 아니요"),
    7: ("counting", "수 세기"),
    8: ("lists", "목록"),
    9: ("negation", "부정"),
    10: ("not certain", "불확실"),
    11: ("coreference", "대용어"),
    12: ("and", "접속"),
    13: ("coreference of two", "둘을 가리키는 대용어"),
    14: ("time", "시간"),
    15: ("deduction", "연역"),
    16: ("induction", "귀납"),
    17: ("positions", "위치"),
    18: ("sizes", "크기"),
    19: ("path finding", "길 찾기"),
    20: ("motives", "동기"),
}
_HEADER = {
    "en": ["task", "", "right, %", "95 % interval", "questions", "most frequent answer, %", "hoped for"],
    "ko": ["과제", "", "맞음, %", "95 % 구간", "문항", "가장 잦은 답, %", "계획의 기대"],
}
_BELOW = {
    "en": "{many} of the {count} tasks measured reach {least:.0f} %; the plan hoped for 15 of 20. Each is one seed.",
    "ko": "측정한 과제 {count}개 가운데 {many}개가 {least:.0f} %에 이른다. 계획은 20개 중 15개를 기대했다. 시드는 하나씩이다.",
}
_LEFT = {"en": " Not measured yet: {left}.", "ko": " 아직 측정하지 않은 과제: {left}."}
_FEW = {
    "en": " Task 3 has 1,000 questions in all, since the archive has no larger edition of it.",
    "ko": " 과제 3은 큰 판이 파일에 없어 문항이 모두 1,000개이다.",
}


def babi_table(path: Path, name: str, language: str) -> str:
    """Accuracy a task of the recipe `babi-looped`, its interval, and the most frequent answer."""
    results = read_summary(path)["results"]
    own, frequent = (
        {_task(r): r["cells"][0] for r in results if r["preset"] == each} for each in (_OWN, f"{_OWN}-most-frequent")
    )
    rows = []
    for number, cell in sorted(own.items()):
        low, high = (f"{100 * share:.1f}" for share in (cell["low"], cell["high"]))
        share, by_rule = 100 * cell["accuracy"], f"{100 * frequent[number]['accuracy']:.1f}"
        named = _NAMES[number][("en", "ko").index(language)]
        rows.append([str(number), named, f"{share:.1f}", f"{low}-{high}", f"{cell['n']:,}", by_rule, _HOPED.get(number, "")])
    many = sum(cell["accuracy"] >= _LEAST for cell in own.values())
    below = _BELOW[language].format(many=many, count=len(own), least=100 * _LEAST)
    if left := ", ".join(str(number) for number in _NAMES if number not in own):
        below += _LEFT[language].format(left=left)
    return as_markdown(_HEADER[language], rows) + "\n\n" + below + (_FEW[language] if _SMALL in own else "")


_OWN = "babi-looped"
_ASKED = {
    "en": ["task", "", "English, %", "Korean, %", "questions each"],
    "ko": ["과제", "", "영어, %", "한국어, %", "문항(언어마다)"],
}


def ask_table(path: Path, name: str, language: str) -> str:
    """Accuracy a task of the model that `looplm ask` takes, in both languages."""
    (result,) = read_summary(path)["results"]
    cells = {(cell["set"], cell["size"]): cell for cell in result["cells"]}
    rows = [
        [str(number), _NAMES[number][("en", "ko").index(language)]]
        + [f"{100 * cells[said, number]['accuracy']:.1f}" for said in ("en", "ko")]
        + [f"{cells['en', number]['n']:,}"]
        for number in sorted({number for _, number in cells})
    ]
    return as_markdown(_ASKED[language], rows)


def _task(result: Result) -> int:
    number: int = result["cells"][0]["size"]
    return number
