"""How a Korean word takes a particle or an ending: by its last syllable."""

from typing import Literal

_FIRST, _VOWELS, _FINALS = 0xAC00, 21, 28
_RIEUL, _PAST = 8, 20
"""Places of the final consonants ㄹ and ㅆ among the 28 of a syllable, 0 being none."""
_A, _O = 0, 8
"""Places of the vowels ㅏ and ㅗ among the 21."""
_MEETINGS = {0: 0, 1: 1, 4: 4, 5: 5, 6: 6, 8: 9, 11: 10, 13: 14, 20: 6}
"""The vowel that a stem's last vowel and the 아 or 어 of an ending become: ㅏㅐㅓㅔㅕ stay, ㅗ ㅘ, ㅚ ㅙ, ㅜ ㅝ, ㅣ ㅕ."""

PARTICLES: dict[str, tuple[str, str]] = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "와": ("과", "와"),
    "으로": ("으로", "로"),
    "아": ("아", "야"),
    "의": ("의", "의"),
    "에": ("에", "에"),
    "에서": ("에서", "에서"),
    "에게": ("에게", "에게"),
    "에게서": ("에게서", "에게서"),
    "에게는": ("에게는", "에게는"),
}
"""After a final consonant, and after none."""

Ending = Literal["past", "past-polite", "past-formal", "imperative", "imperative-polite", "imperative-formal", "because"]


def final(syllable: str) -> int:
    """Place of a syllable's final consonant among the 28, 0 if it has none."""
    return (ord(syllable) - _FIRST) % _FINALS


def vowel(syllable: str) -> int:
    """Place of a syllable's vowel among the 21."""
    return (ord(syllable) - _FIRST) // _FINALS % _VOWELS


def with_particle(word: str, particle: str) -> str:
    """The word and the form of the particle that its last syllable asks for; 로 also follows ㄹ.

    Args:
        word: ends in a syllable of Hangul.
        particle: a key of `PARTICLES`.

    Spec: [world.particle][].
    """
    closed, opened = PARTICLES[particle]
    last = final(word[-1])
    return word + (opened if last == 0 or (particle == "으로" and last == _RIEUL) else closed)


def infinitive(stem: str) -> str:
    """The stem with 아 or 어, contracted where two vowels meet.

    Raises:
        ValueError: if the stem ends in a vowel whose contraction is not known here.

    Spec: [world.vowel-harmony][].
    """
    if stem.endswith("하"):
        return stem[:-1] + "해"
    place = vowel(stem[-1])
    if final(stem[-1]):
        return stem + ("아" if place in (_A, _O) else "어")
    if place not in _MEETINGS:
        raise ValueError(f"the stem {stem!r} ends in a vowel that no rule here contracts; give another word.")
    return stem[:-1] + chr(ord(stem[-1]) + (_MEETINGS[place] - place) * _FINALS)


def inflect(stem: str, ending: Ending, irregular: str = "") -> str:
    """A verb's stem with an ending.

    Args:
        stem: as a dictionary lists it, without 다.
        ending: which one; those of the levels 해요 and 하십시오 say so.
        irregular: the stem before a vowel, where it is another one: 주우 of 줍.

    Spec: [world.ending][].
    """
    before_vowel = irregular or stem
    joined = infinitive(before_vowel)
    if ending.startswith("past"):
        past = joined[:-1] + chr(ord(joined[-1]) + _PAST)
        return past + {"past": "다", "past-polite": "어요", "past-formal": "습니다"}[ending]
    if ending == "imperative":
        return joined + "라"
    if ending == "because":
        return joined + "서"
    if final(stem[-1]) == _RIEUL:
        honorific = stem[:-1] + chr(ord(stem[-1]) - _RIEUL)
    else:
        honorific = before_vowel + ("으" if final(before_vowel[-1]) else "")
    return honorific + {"imperative-polite": "세요", "imperative-formal": "십시오"}[ending]
