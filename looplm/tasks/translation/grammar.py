"""Sentences of the grammar: drawn, said in English and in Korean, and read back from English."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar, get_args

from looplm.errors import InputError
from looplm.tasks.translation.korean import Level, Tense, adnominal, conjugate, particle
from looplm.tasks.translation.words import ADJECTIVES, ADVERBS, NOUNS, PRONOUNS, VERBS, Noun, Pronoun, Verb

LEVELS: tuple[Level, ...] = get_args(Level)
TENSES: tuple[Tense, ...] = get_args(Tense)
NUMBERS = 21
"""Uniform numbers that a sentence is drawn from."""
_ONE_IN = 8
_ADJECTIVE = _ADVERB = _PLURAL = _NEGATIVE = 0.3
_PRONOUN_SUBJECT = 0.5
_PRONOUN_OBJECT = 1.0
"""Over the kinds of objects that a verb takes: an object that may be a person is so often a pronoun."""
T = TypeVar("T")


@dataclass(frozen=True)
class Phrase:
    """A noun, or a pronoun."""

    head: Noun | Pronoun
    plural: bool = False
    adjective: str = ""

    @property
    def third(self) -> bool:
        """Whether it takes a verb in -s."""
        return self.head.third if isinstance(self.head, Pronoun) else not self.plural

    @property
    def key(self) -> str:
        """What it is called where pairs are told apart: number and adjective do not count."""
        return self.head.object if isinstance(self.head, Pronoun) else self.head.english

    def english(self, *, subject: bool) -> list[str]:
        """Its words."""
        if isinstance(self.head, Pronoun):
            return [self.head.subject if subject else self.head.object]
        noun = plural_of(self.head.english) if self.plural else self.head.english
        return ["the", *([self.adjective] if self.adjective else []), noun]

    def korean(self, level: Level) -> tuple[str, str]:
        """Adjective with a space behind it, or nothing; and noun without a particle."""
        if isinstance(self.head, Pronoun):
            return "", self.head.plain if level == "plain" else self.head.polite
        return ADJECTIVES[self.adjective] + " " if self.adjective else "", self.head.korean + "들" * self.plural


@dataclass(frozen=True)
class Relative:
    """What somebody does to a noun, said of it."""

    subject: Phrase
    verb: Verb
    tense: Tense


@dataclass(frozen=True)
class Sentence:
    """Who does what to whom, in one or two clauses."""

    level: Level
    subject: Phrase
    verb: Verb
    object: Phrase
    tense: Tense = "present"
    negative: bool = False
    adverb: str = ""
    relative: Relative | None = None
    """Of the object."""

    @property
    def clauses(self) -> int:
        """One, or two."""
        return 1 if self.relative is None else 2

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Each verb with its object."""
        yield self.verb.base, self.object.key
        if self.relative:
            yield self.relative.verb.base, self.object.key

    def english(self) -> list[str]:
        """Its words; the level of speech comes first, which English does not tell.

        Spec: [translation.english][].
        """
        words = [self.level, *([self.adverb] if self.adverb else []), *self.subject.english(subject=True)]
        words += verb_group(self.verb, self.tense, self.subject.third, self.negative)
        words += self.object.english(subject=False)
        if self.relative:
            words += ["that", *self.relative.subject.english(subject=True)]
            words += verb_group(self.relative.verb, self.relative.tense, self.relative.subject.third, False)
        return words

    def korean(self) -> str:
        """The reference translation.

        Spec: [translation.order][], [translation.particles][], [translation.relative][].
        """
        before, noun = self.subject.korean(self.level)
        said = [before + particle(noun, "topic")]
        said += [ADVERBS[self.adverb]] if self.adverb else []
        if self.relative:
            adjective, who = self.relative.subject.korean(self.level)
            said += [adjective + particle(who, "subject"), adnominal(self.relative.verb.stem, self.relative.tense)]
        before, noun = self.object.korean(self.level)
        said.append(before + particle(noun, "object"))
        verb = self.verb
        return " ".join([*said, conjugate(verb.stem, verb.infinitive, self.tense, self.level, negative=self.negative)])


def plural_of(noun: str) -> str:
    """English, regular."""
    if noun.endswith(("ch", "x", "potato", "tomato")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeou" else noun + "s"


def third_of(verb: str) -> str:
    """The form in -s."""
    if verb.endswith(("ch", "sh", "s", "x")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeou" else verb + "s"


def verb_group(verb: Verb, tense: Tense, third: bool, negative: bool) -> list[str]:
    """English: `loves`, `did not love`, `will love`."""
    if tense == "future":
        return ["will", *(["not"] if negative else []), verb.base]
    if negative:
        return ["did" if tense == "past" else "does" if third else "do", "not", verb.base]
    return [verb.past if tense == "past" else third_of(verb.base) if third else verb.base]


@lru_cache(maxsize=100_000)
def held_out(verb: str, object: str) -> bool:
    """True for pairs of verb and object that training never sees: those that fall where `love you` falls.

    Spec: [translation.unseen][].
    """
    return _class_of(verb, object) == _class_of("love", "you")


def _class_of(verb: str, object: str) -> int:
    return int(hashlib.sha256(f"{verb} {object}".encode()).hexdigest()[:8], 16) % _ONE_IN


def draw(numbers: Sequence[float], clauses: int) -> Sentence:
    """The sentence of `NUMBERS` uniform numbers, of so many clauses.

    Spec: [translation.drawn][].
    """
    level, tense, negative = _pick(LEVELS, numbers[0]), _pick(TENSES, numbers[1]), numbers[2] < _NEGATIVE
    adverb, verb = _or_none(numbers[3], _ADVERB, tuple(ADVERBS)), _pick(VERBS, numbers[4])
    subject = _subject(numbers[5:10])
    what = _object(verb, subject, numbers[10:14])
    if clauses == 1:
        return Sentence(level, subject, verb, what, tense, negative, adverb)
    if isinstance(what.head, Pronoun):  # nobody says something of a pronoun
        what = Phrase(_pick(_of_kind("p"), numbers[11]))
    assert isinstance(what.head, Noun)
    takes = [verb for verb in VERBS if what.head.kind in verb.kinds]
    relative = Relative(_subject(numbers[14:19]), _pick(takes, numbers[19]), _pick(TENSES, numbers[20]))
    return Sentence(level, subject, verb, what, tense, negative, adverb, relative)


def _pick(options: Sequence[T], number: float) -> T:
    return options[int(number * len(options))]


@lru_cache
def _of_kind(kinds: str) -> tuple[Noun, ...]:
    return tuple(noun for noun in NOUNS if noun.kind in kinds)


def _or_none(number: float, share: float, options: Sequence[str]) -> str:
    return _pick(options, number / share) if number < share else ""


def _adjective(number: float) -> str:
    return _or_none(number, _ADJECTIVE, tuple(ADJECTIVES))


def _subject(numbers: Sequence[float]) -> Phrase:
    if numbers[0] < _PRONOUN_SUBJECT:
        return Phrase(_pick(PRONOUNS, numbers[1]))
    return Phrase(_pick(_of_kind("pa"), numbers[2]), numbers[3] < _PLURAL, _adjective(numbers[4]))


def _object(verb: Verb, subject: Phrase, numbers: Sequence[float]) -> Phrase:
    """Nobody does something to themself by the same pronoun."""
    others = [pronoun for pronoun in PRONOUNS if pronoun != subject.head]
    if "p" in verb.kinds and numbers[0] < _PRONOUN_OBJECT / len(verb.kinds):
        return Phrase(_pick(others, numbers[1]))
    return Phrase(_pick(_of_kind(verb.kinds), numbers[1]), numbers[2] < _PLURAL, _adjective(numbers[3]))


_NOUN_OF = {form: (noun, form != noun.english) for noun in NOUNS for form in (noun.english, plural_of(noun.english))}
_SUBJECT_OF = {pronoun.subject: pronoun for pronoun in PRONOUNS}
_OBJECT_OF = {pronoun.object: pronoun for pronoun in PRONOUNS}


class _Reader:
    """English words, read from the left."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words, self.at = list(words), 0

    def take(self, options: Sequence[str] | dict[str, str]) -> str:
        """The next word, if it is one of these, or nothing."""
        found = self.words[self.at] if self.at < len(self.words) else ""
        if found not in options:
            return ""
        self.at += 1
        return found

    def phrase(self, pronouns: dict[str, Pronoun]) -> Phrase:
        if word := self.take(tuple(pronouns)):
            return Phrase(pronouns[word])
        if not self.take(("the",)):
            raise self.wrong("a pronoun, or `the` and a noun")
        adjective, noun = self.take(ADJECTIVES), self.take(tuple(_NOUN_OF))
        if not noun:
            raise self.wrong("a noun" if adjective else "a noun, or an adjective and a noun")
        head, plural = _NOUN_OF[noun]
        return Phrase(head, plural, adjective)

    def verb(self, subject: Phrase) -> tuple[Verb, Tense, bool]:
        for verb in VERBS:
            for tense in TENSES:
                for negative in (False, True):
                    group = verb_group(verb, tense, subject.third, negative)
                    if self.words[self.at : self.at + len(group)] == group:
                        self.at += len(group)
                        return verb, tense, negative
        raise self.wrong("a verb that fits its subject")

    def wrong(self, wanted: str) -> InputError:
        found = repr(self.words[self.at]) if self.at < len(self.words) else "the end"
        known = self.at >= len(self.words) or self.words[self.at] in forms()[0]
        hint = "" if known else "; `looplm translate --words` lists all words"
        return InputError(f"word {self.at + 1} of {' '.join(self.words)!r} must be {wanted}: got {found}{hint}.")


def parse(text: str) -> Sentence:
    """The sentence that English words say; without a level of speech in front it is plain.

    Raises:
        InputError: if the grammar has no such sentence, with the first word that does not fit.

    Spec: [translation.refused][], [translation.english][].
    """
    words = ["I" if word in ("i", "I") else word.lower() for word in text.replace(":", " ").rstrip(". ").split()]
    if not words:
        raise InputError("the text is empty; write a sentence, such as 'I love you'.")
    reader = _Reader(words)
    level: Level = next((each for each in LEVELS if reader.take((each,))), "plain")
    adverb, subject = reader.take(ADVERBS), reader.phrase(_SUBJECT_OF)
    verb, tense, negative = reader.verb(subject)
    what, relative = reader.phrase(_OBJECT_OF), None
    if reader.take(("that",)):
        who = reader.phrase(_SUBJECT_OF)
        done, when, not_done = reader.verb(who)
        if not_done or isinstance(what.head, Pronoun):
            raise InputError("a relative clause says something of a noun, and is not negated.")
        relative = Relative(who, done, when)
    if reader.at < len(words):
        raise reader.wrong("the last one, or `that` and a clause")
    return Sentence(level, subject, verb, what, tense, negative, adverb, relative)


def words_by_kind() -> dict[str, list[str]]:
    """English words of the grammar as a dictionary lists them, by kind; nouns singular, verbs with their past."""
    nouns = {"p": "people", "a": "animals", "t": "things", "f": "food", "w": "writings", "l": "places"}
    return {
        "levels of speech": list(LEVELS),
        "pronouns": sorted({form for pronoun in PRONOUNS for form in (pronoun.subject, pronoun.object)}),
        **{name: sorted(noun.english for noun in NOUNS if noun.kind == kind) for kind, name in nouns.items()},
        "adjectives": sorted(ADJECTIVES),
        "adverbs": sorted(ADVERBS),
        "verbs": sorted(f"{verb.base} ({verb.past})" for verb in VERBS),
        "others": ["the", "that", "will", "do", "does", "did", "not"],
    }


@lru_cache
def longest(clauses: int) -> Sentence:
    """The sentence with most English words and Korean syllables, of so many clauses at most."""

    def length(sentence: Sentence) -> int:
        return len(sentence.english()) + len(sentence.korean())

    adjective = max(ADJECTIVES, key=lambda word: len(ADJECTIVES[word]))
    adverb = max(ADVERBS, key=lambda word: len(ADVERBS[word]))
    subject = Phrase(max(_of_kind("pa"), key=lambda noun: len(noun.korean)), True, adjective)
    found = []
    for kind in sorted({noun.kind for noun in NOUNS}):
        what = Phrase(max(_of_kind(kind), key=lambda noun: len(noun.korean)), True, adjective)
        takes = [verb for verb in VERBS if kind in verb.kinds]
        plain = [Sentence("formal", subject, verb, what, "future", True, adverb) for verb in takes]
        one = max(plain, key=length)
        two = (replace(one, relative=Relative(subject, verb, tense)) for verb in takes for tense in TENSES)
        found.append(one if clauses == 1 else max(two, key=length))
    return max(found, key=length)


@lru_cache(maxsize=1)
def forms() -> tuple[set[str], set[str]]:
    """All English words, and all Korean words between spaces, of sentences of the grammar.

    Spec: [translation.words][].
    """
    english = {*LEVELS, *ADVERBS, *ADJECTIVES, *_NOUN_OF, *_SUBJECT_OF, *_OBJECT_OF, "the", "that"}
    spoken = {*ADVERBS.values(), *ADJECTIVES.values()}
    named = {noun.korean + "들" * plural for noun in NOUNS for plural in (False, True)}
    named |= {word for pronoun in PRONOUNS for word in (pronoun.plain, pronoun.polite)}
    spoken |= {particle(word, role) for word in named for role in ("topic", "subject", "object")}
    for verb, tense, other in itertools.product(VERBS, TENSES, (False, True)):
        english |= {word for third in (False, True) for word in verb_group(verb, tense, third, other)}
        said = [conjugate(verb.stem, verb.infinitive, tense, level, negative=other) for level in LEVELS]
        spoken |= {word for each in said for word in each.split()} | {adnominal(verb.stem, tense)}
    return english, spoken
