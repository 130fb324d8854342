"""What `looplm world judge` counted, as a page shows it: shares beside their aims, and stories as they came."""

import json
from pathlib import Path

from looplm.runs.results import as_markdown

_AIMS = {"parse": 95, "keep_who_has_what": 90, "new": 95}
"""Per cent, of the issue that asked for this model."""
_WORDS = {
    "en": {
        "head": "what | share, % [95 %] | counted | aim, %",
        "parse": "sentences that are right",
        "keep_who_has_what": "stories that keep who has what",
        "new": "different sentences that do not stand in the training text",
        "made": "{parameters:,} parameters; {listed:,} words of a dictionary, {forms:,} forms in text; seed {seed}; "
        "{unfinished} stories did not end within the context. Trained on {tokens:,} tokens in {minutes:.1f} minutes by the "
        "clock ({device}, {threads} thread in use, other work beside it: an upper bound).",
    },
    "ko": {
        "head": "항목 | 비율, % [95 %] | 개수 | 목표, %",
        "parse": "올바른 문장",
        "keep_who_has_what": "누가 무엇을 가졌는지 지킨 이야기",
        "new": "서로 다른 문장 중 학습 텍스트에 없는 것",
        "made": "파라미터 {parameters:,}개. 사전에 실릴 단어 {listed:,}개, 텍스트에 나타나는 꼴 {forms:,}개. 시드 {seed}. "
        "문맥 안에서 끝나지 않은 이야기 {unfinished}편. 토큰 {tokens:,}개로 시계로 {minutes:.1f}분 동안 학습했다"
        "({device}, 스레드 {threads}개 사용, 다른 작업과 함께 실행한 상한).",
    },
}
_STORIES = 3


def world_table(path: Path, name: str, language: str) -> str:
    """The shares of one judgement, and what model it was."""
    report, words = json.loads(path.read_bytes()), _WORDS[language]
    rows = []
    for key, aim in _AIMS.items():
        cell = report["shares"][key]
        low, high = (100 * bound for bound in cell["interval"])
        share = f"{100 * cell['right'] / cell['n']:.1f} [{low:.1f}, {high:.1f}]"
        rows.append([words[key], share, f"{cell['right']:,} / {cell['n']:,}", f"≥ {aim}"])
    training = report["training"]
    made = words["made"].format(
        parameters=report["parameters"],
        tokens=training["training"]["tokens"],
        minutes=training["training"]["elapsed_s"] / 60,
        device=training["device"],
        threads=training["threads"],
        **report["words"],
        seed=report["sampling"]["seed"],
        unfinished=report["shares"]["unfinished_stories"],
    )
    return f"{as_markdown(words['head'].split(' | '), rows)}\n\n{made}"


def world_stories(path: Path, name: str, language: str) -> str:
    """The first stories, none picked."""
    stories = json.loads(path.read_bytes())["samples"][:_STORIES]
    return "```text\n" + "\n\n".join("\n".join(story) for story in stories) + "\n```"
