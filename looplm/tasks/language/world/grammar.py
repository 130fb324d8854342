"""The sentences of the small world: a pattern gives them, and the same pattern reads them.

A pattern is words with slots. `{a은}` is a person in the role a with a particle, `{t을}` a thing, `{find.past}` a verb that
finds. A slot's forms are all computed, so reading is looking up, and what is not exactly right is not read.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from looplm.hangul import PARTICLES, Ending, inflect, with_particle
from looplm.tasks.language.world import lexicon

Level = Literal["plain", "polite", "formal"]
"""해라, 해요, 하십시오: how one speaks to whom."""
NOBODY = ""
Move = tuple[str, str, str]
"""A thing's role, who must have it before, and who has it after; `NOBODY` has what is not found yet, or lost."""

_PEOPLE: dict[Level, tuple[str, ...]] = {"plain": lexicon.FRIENDS, "polite": lexicon.ELDERS, "formal": lexicon.TITLES}
LEVELS: dict[str, Level] = {person: level for level, people in _PEOPLE.items() for person in people}
"""At which level one speaks to each person."""
_WORDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys("abc", tuple(LEVELS)),
    **dict.fromkeys("tu", lexicon.THINGS),
    "p": lexicon.PLACES,
    "j": lexicon.ADJECTIVES,
    "q": lexicon.LOCAL,
    "w": lexicon.TIMES,
    "m": lexicon.MANNERS,
    "k": lexicon.CONTAINERS,
    "o": lexicon.ORIGINS,
    **lexicon.VERBS,
}
"""What may stand in a slot."""
_PERSONS = "abc"
_NOUNS = f"{_PERSONS}tupk"
"""Roles whose words take a particle, or are called."""
_SPOKEN: dict[str, tuple[str, str, str]] = {
    "나는": ("나는", "저는", "저는"),
    "나에게": ("나에게", "저에게", "저에게"),
    "있다": ("있다", "있어요", "있습니다"),
    "있니": ("있니", "있어요", "있습니까"),
    "고맙다": ("고맙다", "고마워요", "고맙습니다"),
}
"""Words in the forms of the three levels; endings have theirs in their names."""

_TOLD: dict[str, tuple[str, tuple[Move, ...]]] = {
    "open": ("옛날 옛적에 {a와} {b이} {q} {p에} 살았다.", ()),
    "meet": ("{w} {a이} {q} {p에서} {b을} 만났다.", ()),
    "own": ("{a에게는} {p에서} {o} {j} {t이} 있었다.", (("t", NOBODY, "a"),)),
    "find": ("{w} {a은} {p에서} {j} {t을} {find.past}.", (("t", NOBODY, "a"),)),
    "give": ("{w} {a은} {b에게} {t을} {m} {give.past}.", (("t", "a", "b"),)),
    "receive": ("{w} {a은} {b에게서} {t을} {m} {receive.past}.", (("t", "b", "a"),)),
    "lose": ("{w} {a은} {q} {p에서} {t을} {lose.past}.", (("t", "a", NOBODY),)),
    "show": ("{w} {a은} {b에게} {t을} {m} {show.past}.", (("t", "a", "a"),)),
    "swap": ("{w} {a은} {t을} {b의} {u와} 바꿨다.", (("t", "a", "b"), ("u", "b", "a"))),
    "use": ("{w} {a은} {p에서} {t을} {m} {use.past}.", (("t", "a", "a"),)),
    "kept": ("{w} {t은} {a의} {k에} 있었다.", (("t", "a", "a"),)),
    "act": ("{w} {a은} {b을} 보고 {m} {act.past}.", ()),
    "go": ("{w} {a은} {b와} {q} {p으로} {go.past}.", ()),
}
_SAID: dict[str, tuple[str, tuple[Move, ...]]] = {
    "ask": ('{a이} {b에게} 말했다. "{b!}, 나에게 {t을} {m} {give.imperative}."', (("t", "b", "b"),)),
    "claim": ('{a이} {b에게} {m} 말했다. "{b!}, 나에게 {t이} 있다."', (("t", "a", "a"),)),
    "report": ('{a이} {b에게} 말했다. "{b!}, 나는 {p에서} {t을} {find.past}."', (("t", "a", "a"),)),
    "wonder": ('{a이} {b에게} {m} 물었다. "{b!}, {t은} 누구에게 있니?"', ()),
    "answer": ('{a이} {b에게} {m} 대답했다. "{b!}, {t은} 나에게 있다."', (("t", "a", "a"),)),
    "point": ('{a이} {b에게} 대답했다. "{b!}, {t은} {c에게} 있다."', (("t", "c", "c"),)),
    "thank": ('{a이} {b에게} {m} 말했다. "{b!}, {t을} {give.because} 고맙다."', (("t", "a", "a"),)),
    "send": ('{a이} {b에게} 말했다. "{b!}, {q} {p으로} {go.imperative}."', ()),
}
MOVES: dict[str, tuple[Move, ...]] = {name: moves for name, (_, moves) in (_TOLD | _SAID).items()}
"""What each kind of sentence needs and changes of who has what."""
_SLOT = re.compile(r"([^{]*)\{([a-z]+)[.]?([^}]*)\}(.*)")


@dataclass(frozen=True)
class Slot:
    """A word of a pattern: signs before it, the role, its particle or ending, and signs after it."""

    before: str
    role: str
    form: str
    after: str


@dataclass(frozen=True)
class Pattern:
    """A kind of sentence, at one level if it is spoken."""

    kind: str
    level: Level | None
    words: tuple[str | Slot, ...]


@dataclass(frozen=True)
class Sentence:
    """What a line says: its kind, and who or what stands in each role."""

    kind: str
    roles: dict[str, str]
    pattern: Pattern


def _pattern(kind: str, text: str, level: Level | None) -> Pattern:
    words: list[str | Slot] = []
    place = get_args(Level).index(level) if level else 0
    for word in text.split():
        core = word.rstrip('.?"')
        if core in _SPOKEN:
            word = _SPOKEN[core][place] + word.removeprefix(core)
        if found := _SLOT.fullmatch(word):
            before, role, form, after = found.groups()
            leveled = level in ("polite", "formal") and form in ("past", "imperative")
            words.append(Slot(before, role, f"{form}-{level}" if leveled else form, after))
        else:
            words.append(word)
    return Pattern(kind, level, tuple(words))


PATTERNS: tuple[Pattern, ...] = tuple(
    [_pattern(kind, text, None) for kind, (text, _) in _TOLD.items()]
    + [_pattern(kind, text, level) for kind, (text, _) in _SAID.items() for level in get_args(Level)]
)


def word_form(role: str, word: str, form: str) -> str:
    """A word as it stands in a slot: called, inflected, or with its particle.

    Spec: [world.particle][], [world.ending][], [world.level][].
    """
    if role in lexicon.VERBS:
        ending: Ending = form  # type: ignore[assignment]
        return inflect(word, ending, lexicon.IRREGULAR.get(word, ""))
    if form == "!":
        return with_particle(word, "아") if LEVELS[word] == "plain" else word
    return with_particle(word, form) if form else word


@cache
def forms(role: str, form: str) -> dict[str, str]:
    """Every form that may stand in a slot, and the word that it is of."""
    return {word_form(role, word, form): word for word in _WORDS[role]}


def words_of(role: str) -> tuple[str, ...]:
    """What may stand in a role."""
    return _WORDS[role]


def write(pattern: Pattern, roles: dict[str, str], delimiter: str = "") -> str:
    """The line of a pattern, with a word for each role.

    Args:
        pattern: of the sentence.
        roles: the word in each.
        delimiter: stands between a noun and its particle, and before a person's name.

    Spec: [world.delimiter][].
    """
    return " ".join(word if isinstance(word, str) else _stand(word, roles[word.role], delimiter) for word in pattern.words)


def _stand(slot: Slot, word: str, delimiter: str) -> str:
    """A word as it stands in a line, with the signs around it."""
    form = word_form(slot.role, word, slot.form)
    if slot.role in _NOUNS:
        form = word + delimiter + form.removeprefix(word)
    return slot.before + (delimiter if slot.role in _PERSONS else "") + form + slot.after


def read(line: str) -> Sentence | None:
    """What a line says; None if it is no right sentence of this world.

    Spec: [world.parser][], [world.level][].
    """
    words = line.split(" ")
    for pattern in _by_length().get(len(words), ()):
        roles = _match(pattern, words)
        if roles is not None:
            return Sentence(pattern.kind, roles, pattern)
    return None


@cache
def _by_length() -> dict[int, list[Pattern]]:
    found: dict[int, list[Pattern]] = {}
    for pattern in PATTERNS:
        found.setdefault(len(pattern.words), []).append(pattern)
    return found


def _match(pattern: Pattern, words: list[str]) -> dict[str, str] | None:
    """The roles, if every word fits, one role is always one word, and no two people or things are the same."""
    roles: dict[str, str] = {}
    for slot, text in zip(pattern.words, words, strict=True):
        if isinstance(slot, str):
            if slot != text:
                return None
            continue
        if not text.startswith(slot.before) or not text.endswith(slot.after):
            return None
        word = forms(slot.role, slot.form).get(text[len(slot.before) : len(text) - len(slot.after)])
        if word is None or roles.setdefault(slot.role, word) != word:
            return None
    return roles if allowed(pattern, roles) else None


def allowed(pattern: Pattern, roles: dict[str, str]) -> bool:
    """Whether people and things are different ones, and who is spoken to is spoken to at the right level.

    Spec: [world.level][].
    """
    named = [roles[role] for role in "abctu" if role in roles]
    return len(set(named)) == len(named) and (pattern.level is None or LEVELS[roles["b"]] == pattern.level)


def flips(line: str) -> list[str]:
    """The line with one particle, ending or level other than it was, in all ways.

    Raises:
        ValueError: if it is no sentence of this world.

    Spec: [world.flips][].
    """
    sentence = read(line)
    if sentence is None:
        raise ValueError(f"only a right sentence can be made wrong: got {line!r}.")
    words = line.split(" ")
    changed = []
    for place, slot in enumerate(sentence.pattern.words):
        others = _others_of_slot(slot, sentence.roles) if isinstance(slot, Slot) else _others_of_word(slot)
        changed += [" ".join([*words[:place], other, *words[place + 1 :]]) for other in others if other != words[place]]
    return list(dict.fromkeys(changed))


def _others_of_slot(slot: Slot, roles: dict[str, str]) -> list[str]:
    word = roles[slot.role]
    if slot.role in lexicon.VERBS:
        shapes = [word_form(slot.role, word, ending) for ending in get_args(Ending)]
        right = word_form(slot.role, word, slot.form)
        shapes += [right.translate(swap) for swap in ({ord("았"): "었", ord("었"): "았"}, {ord("아"): "어", ord("어"): "아"})]
    elif slot.form == "!":
        shapes = [word, f"{word}아", f"{word}야"]
    elif slot.form:
        shapes = [word + shape for pair in PARTICLES.values() for shape in pair]
    else:
        shapes = []
    return [slot.before + shape + slot.after for shape in shapes]


def _others_of_word(text: str) -> list[str]:
    core = text.rstrip('.?"')
    return [shape + text.removeprefix(core) for shapes in _SPOKEN.values() if core in shapes for shape in shapes]
