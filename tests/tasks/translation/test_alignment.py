"""The pieces of a translation are the translation, and name the words that decide them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looplm.tasks.translation.alignment import pieces_of, places_of
from looplm.tasks.translation.grammar import NUMBERS, Sentence, draw, parse, third_of
from looplm.tasks.translation.korean import final_of

NUMBER = st.floats(0, 1, exclude_max=True)
SENTENCES = st.builds(draw, st.lists(NUMBER, min_size=NUMBERS, max_size=NUMBERS), st.integers(1, 2))


@pytest.mark.spec("translation.alignment")
@given(SENTENCES)
def test_the_pieces_are_the_translation(sentence: Sentence) -> None:
    pieces = pieces_of(sentence)
    assert "".join(piece.text for piece in pieces) == sentence.korean()
    assert all(piece.text for piece in pieces)
    assert all((piece.role == "space") == (piece.text == " ") == (piece.word is None) for piece in pieces)


@pytest.mark.spec("translation.alignment")
@given(SENTENCES)
def test_the_places_are_those_of_the_words(sentence: Sentence) -> None:
    english, at = sentence.english(), places_of(sentence)
    assert english[at.subject] == sentence.subject.english(subject=True)[-1]
    assert english[at.object] == sentence.object.english(subject=False)[-1]
    assert english[at.verb] in (sentence.verb.base, sentence.verb.past, third_of(sentence.verb.base))
    assert (at.adverb is not None) == bool(sentence.adverb)
    if at.adverb is not None:
        assert english[at.adverb] == sentence.adverb
    for place, phrase in ((at.subject_adjective, sentence.subject), (at.object_adjective, sentence.object)):
        assert (english[place] if place is not None else "") == phrase.adjective
    assert (at.relative_verb is None) == (sentence.relative is None)
    if sentence.relative and at.relative_verb is not None and at.relative_subject is not None:
        assert english[at.relative_verb] in (
            sentence.relative.verb.base,
            sentence.relative.verb.past,
            third_of(sentence.relative.verb.base),
        )
        assert at.relative_verb == len(english) - 1
        assert english[at.relative_subject] == sentence.relative.subject.english(subject=True)[-1]


@pytest.mark.spec("translation.alignment")
@given(SENTENCES)
def test_a_particle_follows_its_noun_and_its_sound(sentence: Sentence) -> None:
    pieces = pieces_of(sentence)
    for noun, particle in itertools.pairwise(pieces):
        if particle.role == "particle":
            assert (noun.role, noun.word) == ("noun", particle.word)
            assert bool(final_of(noun.text)) == (particle.text in "은이을")


def test_i_love_you_in_pieces() -> None:
    said = [(piece.text, piece.role, piece.word) for piece in pieces_of(parse("I love you"))]
    assert said == [
        ("나", "noun", 1),
        ("는", "particle", 1),
        (" ", "space", None),
        ("너", "noun", 3),
        ("를", "particle", 3),
        (" ", "space", None),
        ("사랑한", "stem", 2),
        ("다", "ending", 0),
    ]
