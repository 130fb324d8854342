"""Korean forms: particles by the final consonant, and a verb's forms from its stem and its infinitive."""

from typing import Literal

from looplm.hangul import final, with_particle

Level = Literal["plain", "polite", "formal"]
Tense = Literal["past", "present", "future"]

FINAL = {"": 0, "ㄴ": 4, "ㄹ": 8, "ㅂ": 17, "ㅆ": 20}
"""Numbers of final consonants that endings bring."""
_SOFT = {"돕": "도우", "굽": "구우", "듣": "들으", "짓": "지으"}
"""What irregular stems become before ㄴ and ㄹ."""
_BEFORE_GA = {"나": "내", "저": "제", "너": "네"}
_PARTICLES = {"topic": "은", "subject": "이", "object": "을"}
_ENDINGS = {"plain": "다", "polite": "어요", "formal": "습니다"}
_FUTURE = {"plain": "것이다", "polite": "거예요", "formal": "것입니다"}


def final_of(word: str) -> int:
    """Number of the final consonant of the last syllable; 0: none.

    Spec: [translation.final][].
    """
    return final(word[-1])


def with_final(word: str, consonant: str) -> str:
    """The word with this final consonant in its last syllable, in place of what it had.

    Spec: [translation.final][].
    """
    return word[:-1] + chr(ord(word[-1]) - final_of(word) + FINAL[consonant])


def particle(word: str, role: Literal["topic", "subject", "object"]) -> str:
    """The word with the particle of its role.

    Spec: [translation.particles][].
    """
    return with_particle(_BEFORE_GA.get(word, word) if role == "subject" else word, _PARTICLES[role])


def conjugate(stem: str, infinitive: str, tense: Tense, level: Level, *, negative: bool = False) -> str:
    """The form that ends a sentence.

    Spec: [translation.verb][], [translation.negation][].
    """
    if negative:
        return stem + "지 " + conjugate("않", "않아", tense, level)
    if tense == "past":
        return with_final(infinitive, "ㅆ") + _ENDINGS[level]
    if tense == "future":
        return with_final(_soft(stem), "ㄹ") + " " + _FUTURE[level]
    if level == "polite":
        return infinitive + "요"
    bare = _without_l(stem)
    consonant, joined, apart = ("ㄴ", "다", "는다") if level == "plain" else ("ㅂ", "니다", "습니다")
    return bare + apart if final_of(bare) else with_final(bare, consonant) + joined


def adnominal(stem: str, tense: Tense) -> str:
    """The form that stands in front of a noun.

    Spec: [translation.relative][].
    """
    if tense == "present":
        return _without_l(stem) + "는"
    return with_final(_soft(stem), "ㄴ" if tense == "past" else "ㄹ")


def _without_l(stem: str) -> str:
    return with_final(stem, "") if final_of(stem) == FINAL["ㄹ"] else stem


def _soft(stem: str) -> str:
    """The stem before ㄴ and ㄹ: it ends in a vowel."""
    bare = _without_l(stem)
    return _SOFT.get(stem) or (bare + "으" if final_of(bare) else bare)
