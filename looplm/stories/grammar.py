"""What simulated stories say, and how: each fact and question in English and in Korean, and back again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

from looplm.hangul import final, with_particle
from looplm.stories.format import words_of

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = ("en", "ko")


def _words(text: str) -> dict[str, tuple[str, str]]:
    """English and Korean of each thing, by its English name."""
    pairs = [tuple(pair.split("/")) for pair in text.split()]
    return {english.lower(): (english, korean) for english, korean in pairs}


NAMES = _words("Mary/민수 John/지우 Sandra/영희 Daniel/서연 Emily/하늘 Lily/가람 Brian/철수 Greg/다은")
PLACES = _words("kitchen/부엌 bedroom/침실 garden/정원 office/사무실 bathroom/욕실 hallway/복도")
THINGS = _words("milk/우유 football/축구공 apple/사과 book/책")
HUNTED = _words("mouse/쥐 cat/고양이 wolf/늑대 sheep/양")
"""Kinds of task 15."""
COLOURED = _words("swan/백조 lion/사자 frog/개구리 rhino/코뿔소")
"""Kinds of task 16."""
COLOURS = _words("white/하얀색 gray/회색 green/초록색 yellow/노란색")
DIRECTIONS = _words("north/북 south/남 east/동 west/서")
_ANSWERS = (PLACES, HUNTED, COLOURS)
_PLURAL = {"mouse": "mice", "cat": "cats", "wolf": "wolves", "sheep": "sheep"}

PARTS: dict[str, tuple[dict[str, tuple[str, str]], ...]] = {
    "move": (NAMES, PLACES),
    "take": (NAMES, THINGS),
    "drop": (NAMES, THINGS),
    "kind": (NAMES, HUNTED | COLOURED),
    "fear": (HUNTED, HUNTED),
    "colour": (NAMES, COLOURS),
    "beside": (PLACES, DIRECTIONS, PLACES),
    "where": (NAMES,),
    "where-thing": (THINGS,),
    "afraid-of": (NAMES,),
    "what-colour": (NAMES,),
    "path": (PLACES, PLACES),
}
"""What a fact or question of each kind is about."""
QUESTIONS = ("where", "where-thing", "afraid-of", "what-colour", "path")

_ENGLISH: dict[str, tuple[str, ...]] = {
    "move": tuple(f"{{0}} {went} to the {{1}}" for went in ("moved", "went", "travelled", "journeyed", "went back")),
    "take": ("{0} took the {1}", "{0} picked up the {1}", "{0} got the {1}", "{0} grabbed the {1}"),
    "drop": ("{0} dropped the {1}", "{0} put down the {1}", "{0} left the {1}", "{0} discarded the {1}"),
    "kind": ("{0} is a {1}",),
    "fear": ("{0} are afraid of {1}",),
    "colour": ("{0} is {1}",),
    "beside": ("The {0} is {1} of the {2}",),
    "where": ("Where is {0}",),
    "where-thing": ("Where is the {0}",),
    "afraid-of": ("What is {0} afraid of",),
    "what-colour": ("What color is {0}",),
    "path": ("How do you go from the {0} to the {1}",),
}
_KOREAN: dict[str, tuple[str, ...]] = {
    "move": tuple(f"{{0:은}} {{1:으로}} {went}" for went in ("이동했다", "갔다", "걸어갔다", "향했다", "돌아갔다")),
    "take": ("{0:은} {1:을} 집었다", "{0:은} {1:을} 집어 들었다", "{0:은} {1:을} 들었다", "{0:은} {1:을} 챙겼다"),
    "drop": ("{0:은} {1:을} 떨어뜨렸다", "{0:은} {1:을} 내려놓았다", "{0:은} {1:을} 놓았다", "{0:은} {1:을} 버렸다"),
    "kind": ("{0:은} {1:이다}",),
    "fear": ("{0:은} {1:을} 무서워한다",),
    "colour": ("{0:은} {1:이다}",),
    "beside": ("{0:은} {2:의} {1}쪽에 있다",),
    "where": ("{0:은} 어디에 있는가",),
    "where-thing": ("{0:은} 어디에 있는가",),
    "afraid-of": ("{0:은} 무엇을 무서워하는가",),
    "what-colour": ("{0:은} 무슨 색인가",),
    "path": ("{0:에서} {1}까지 어떻게 가는가",),
}
WAYS = {kind: len(patterns) for kind, patterns in _ENGLISH.items()}
"""In how many ways each kind can be said; the n-th in one language goes with the n-th in the other."""


@dataclass(frozen=True)
class Saying:
    """A fact or question: its kind, and the English names of what it is about."""

    kind: str
    about: tuple[str, ...]


class _Korean(str):
    """A noun that a pattern asks for with a particle, or with the ending 이다."""

    def __format__(self, particle: str) -> str:
        if particle == "이다":
            return self + ("이다" if final(self[-1]) else "다")
        return with_particle(self, particle) if particle else str(self)


def say(saying: Saying, language: Language, way: int = 0) -> str:
    """The sentence, without its end mark.

    Spec: [reasoning.simulated][], [reasoning.korean][].
    """
    nouns = [kinds[name] for kinds, name in zip(PARTS[saying.kind], saying.about, strict=True)]
    if language == "ko":
        return _KOREAN[saying.kind][way].format(*(_Korean(korean) for _, korean in nouns))
    english = [noun for noun, _ in nouns]
    if saying.kind == "fear":
        english = [_PLURAL[english[0]].capitalize(), _PLURAL[english[1]]]
    return _ENGLISH[saying.kind][way].format(*english)


def word(name: str, language: Language) -> str:
    """A name, place, thing, kind, colour or direction in a language, as an answer has it."""
    for nouns in (NAMES, PLACES, THINGS, HUNTED, COLOURED, COLOURS, DIRECTIONS):
        if name in nouns:
            return nouns[name][LANGUAGES.index(language)].lower()
    raise KeyError(name)


def answer_in(names: tuple[str, ...], language: Language) -> str:
    """An answer: one name, or the directions of a path, by their first letters in English."""
    said = [word(name, language) for name in names]
    return ",".join(each[0] for each in said) if names[0] in DIRECTIONS else said[0]


def every(kind: str) -> Iterator[Saying]:
    """All facts or questions of a kind."""
    for about in product(*PARTS[kind]):
        if len(set(about)) == len(about):
            yield Saying(kind, about)


@cache
def words_said(saying: Saying, language: Language, way: int) -> tuple[str, ...]:
    """The words of the sentence."""
    return words_of(say(saying, language, way))


def vocabulary_of(languages: Sequence[Language]) -> tuple[str, ...]:
    """All words of some languages, and the answers that are none, such as two directions; sorted."""
    answers = {answer_in(names, language) for names in product(DIRECTIONS, repeat=2) for language in languages}
    answers |= {word(name, language) for nouns in _ANSWERS for name in nouns for language in languages}
    return tuple(sorted(answers | {each for language in languages for said in readings(language) for each in said}))


@cache
def readings(language: Language) -> dict[tuple[str, ...], Saying]:
    """What each sentence says, by its words.

    Spec: [reasoning.solved][].
    """
    found: dict[tuple[str, ...], Saying] = {}
    for kind, ways in WAYS.items():
        for saying in every(kind):
            for way in range(ways):
                words = words_said(saying, language, way)
                assert found.setdefault(words, saying) == saying, "a sentence says one thing"
    return found
