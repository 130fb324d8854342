"""Which English words each piece of a translation comes from: the grammar knows, for it made both sides."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from looplm.tasks.translation.grammar import Phrase, Sentence, verb_group
from looplm.tasks.translation.korean import adnominal, conjugate, particle
from looplm.tasks.translation.words import ADVERBS, Verb

Role = Literal["noun", "particle", "adjective", "adverb", "stem", "ending", "space"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Piece:
    """A part of a Korean word, or the space between two."""

    text: str
    role: Role
    """What it is; a pronoun counts as a noun, and the stem of a verb is as many syllables as it has in the dictionary."""
    word: int | None
    """Place in the English sentence, from 0, of the word that decides it: a particle's is the noun, an ending's the level."""


@dataclass(frozen=True)
class Places:
    """Where the parts of a sentence stand in English, from 0."""

    subject: int
    verb: int
    object: int
    subject_adjective: int | None = None
    object_adjective: int | None = None
    adverb: int | None = None
    relative_subject: int | None = None
    relative_adjective: int | None = None
    relative_verb: int | None = None


def places_of(sentence: Sentence) -> Places:
    """Of its words.

    Spec: [translation.english][], [translation.alignment][].
    """
    subject = 1 + bool(sentence.adverb) + len(sentence.subject.english(subject=True)) - 1
    verb = subject + len(verb_group(sentence.verb, sentence.tense, sentence.subject.third, sentence.negative))
    what = verb + len(sentence.object.english(subject=False))
    places = {
        "subject_adjective": subject - 1 if sentence.subject.adjective else None,
        "object_adjective": what - 1 if sentence.object.adjective else None,
        "adverb": 1 if sentence.adverb else None,
    }
    if sentence.relative:
        relative = sentence.relative
        who = what + 1 + len(relative.subject.english(subject=True))
        places["relative_subject"] = who
        places["relative_adjective"] = who - 1 if relative.subject.adjective else None
        places["relative_verb"] = who + len(verb_group(relative.verb, relative.tense, relative.subject.third, False))
    return Places(subject, verb, what, **places)


def pieces_of(sentence: Sentence) -> list[Piece]:
    """The translation in pieces, in order.

    Spec: [translation.alignment][].
    """
    at, level = places_of(sentence), sentence.level
    words = [list(_noun(sentence.subject, "topic", sentence, at.subject, at.subject_adjective))]
    if sentence.adverb:
        words.append([Piece(ADVERBS[sentence.adverb], "adverb", at.adverb)])
    if sentence.relative:
        relative = sentence.relative
        assert at.relative_subject is not None and at.relative_verb is not None
        words.append(list(_noun(relative.subject, "subject", sentence, at.relative_subject, at.relative_adjective)))
        words.append(list(_verb(relative.verb, adnominal(relative.verb.stem, relative.tense), at.relative_verb)))
    words.append(list(_noun(sentence.object, "object", sentence, at.object, at.object_adjective)))
    verb = sentence.verb
    said = conjugate(verb.stem, verb.infinitive, sentence.tense, level, negative=sentence.negative)
    words.append(list(_verb(verb, said, at.verb)))
    pieces = list(words[0])
    for word in words[1:]:
        pieces += [Piece(" ", "space", None), *word]
    return pieces


def _noun(
    phrase: Phrase, role: Literal["topic", "subject", "object"], sentence: Sentence, at: int, adjective_at: int | None
) -> Iterator[Piece]:
    adjective, noun = phrase.korean(sentence.level)
    if adjective:
        yield Piece(adjective[:-1], "adjective", adjective_at)
        yield Piece(" ", "space", None)
    whole = particle(noun, role)
    yield Piece(whole[:-1], "noun", at)
    yield Piece(whole[-1], "particle", at)


def _verb(verb: Verb, said: str, at: int) -> Iterator[Piece]:
    """The level, which English says in its first word, decides an ending; one word may have a space within."""
    stem = said[: len(verb.stem)]
    yield Piece(stem, "stem", at)
    for n, part in enumerate(said[len(stem) :].split(" ")):
        if n:
            yield Piece(" ", "space", None)
        if part:
            yield Piece(part, "ending", 0)
