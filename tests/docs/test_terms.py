"""The words of the Korean text: one for each term, in both glossaries alike, and none of those that it avoids."""

import re
from pathlib import Path

import pytest
import terms

ROOT = Path(__file__).parents[2]
WORDS = terms.avoided()


def test_no_korean_text_uses_a_word_that_it_avoids() -> None:
    told = [
        f"{path.relative_to(ROOT)}:{line}: {stands!r}; write {word.use}"
        for path in terms.korean_files(ROOT)
        for line, stands, word in terms.found(path.read_text(encoding="utf-8"))
    ]
    assert told == [], "docs/data/korean-words.toml says which words Korean text avoids"


def test_every_file_with_korean_text_is_looked_at() -> None:
    looked_at = set(terms.korean_files(ROOT))
    for folder in ("docs", "spec", "looplm", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".js", ".yml", ".toml", ".css", ".html") and "vendor" not in path.parts:
                korean = re.search("[가-힣]", path.read_text(encoding="utf-8"))
                name = path.relative_to(ROOT).as_posix()
                assert not korean or path in looked_at or name in terms.MATERIAL, name


@pytest.mark.parametrize("word", WORDS, ids=[word.avoid for word in WORDS])
def test_an_avoided_word_is_found_and_its_better_one_is_not(word: terms.Word) -> None:
    for use in word.avoid.split(", "):
        assert word.find.search(use), f"{use} is not found by {word.find.pattern}"
    for use in word.use.split(", "):
        assert not list(terms.found(use)), f"{use} is avoided itself"


@pytest.mark.parametrize(
    "fine",
    ["받아올림", "반올림", "왼쪽과 오른쪽", "0 쪽으로 당긴다", "쉬운 덧셈", "키와 값", "두 숫자의 합이 9인 자리", "세로셈"],
)
def test_words_that_only_look_alike_may_stand(fine: str) -> None:
    assert not list(terms.found(fine))


def test_both_glossaries_give_the_same_korean_for_the_same_term() -> None:
    def pairs(name: str) -> list[list[str]]:
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        rows = [line.split("|")[1:3] for line in text.splitlines() if line.count("|") >= 4 and "---" not in line]
        return [[cell.strip() for cell in row] for row in rows]

    english, korean = pairs("glossary.md"), pairs("glossary.ko.md")
    head = {("term", "in Korean"), ("우리말", "영어")}
    assert [row for row in english if tuple(row) not in head] == [row[::-1] for row in korean if tuple(row) not in head]
