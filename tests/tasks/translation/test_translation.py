"""The grammar against the spec's own Korean, what English says is read back, and what training never sees."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from looplm.cli import main
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.spec import oracle
from looplm.tasks.translation import END, MAX_SYLLABLES, PAD, TO, Translation, collate, is_unseen
from looplm.tasks.translation.grammar import (
    LEVELS,
    NUMBERS,
    TENSES,
    Phrase,
    Sentence,
    draw,
    forms,
    held_out,
    longest,
    parse,
    plural_of,
    third_of,
    words_by_kind,
)
from looplm.tasks.translation.korean import adnominal, conjugate, final_of, particle, with_final
from looplm.tasks.translation.words import ADJECTIVES, ADVERBS, NOUNS, PRONOUNS, VERBS, Noun, Verb

spec = oracle("translation")
TASK = Translation()
syllables = st.integers(0xAC00, 0xD7A3).map(chr)
words = st.lists(syllables, min_size=1, max_size=3).map("".join)
numbers = st.lists(st.floats(0, 1, exclude_max=True), min_size=NUMBERS, max_size=NUMBERS)
sentences = st.builds(draw, numbers, st.sampled_from([1, 2]))
stems = st.sampled_from([verb.stem for verb in VERBS]) | words


@pytest.mark.spec("translation.final")
@given(words, st.sampled_from(["", "ㄴ", "ㄹ", "ㅂ", "ㅆ"]))
def test_a_final_consonant_is_found_and_put(word: str, consonant: str) -> None:
    assert bool(final_of(word)) == spec.closed(word)
    assert with_final(word, consonant) == spec.end(word, consonant)


@pytest.mark.spec("translation.particles")
@given(words | st.sampled_from(["나", "저", "너", "우리", "책"]), st.sampled_from(["topic", "subject", "object"]))
@example("나", "subject")
@example("나", "object")
def test_particles_follow_the_last_sound(word: str, role: Any) -> None:
    assert particle(word, role) == spec.with_particle(word, role)


@pytest.mark.spec("translation.verb", "translation.negation", "translation.relative")
@given(stems, words, st.sampled_from(TENSES), st.sampled_from(LEVELS))
def test_verbs_end_as_the_spec_says(stem: str, infinitive: str, tense: Any, level: Any) -> None:
    assert conjugate(stem, infinitive, tense, level) == spec.verb(stem, infinitive, tense, level)
    assert conjugate(stem, infinitive, tense, level, negative=True) == spec.negated(stem, tense, level)
    assert adnominal(stem, tense) == spec.before_noun(stem, tense)


@pytest.mark.spec(
    "translation.order", "translation.verb", "translation.relative", "translation.negation", "translation.particles"
)
@pytest.mark.parametrize(
    ("english", "korean"),
    [
        ("I love you", "나는 너를 사랑한다"),
        ("polite: I love you.", "저는 당신을 사랑해요"),
        ("formal the teachers will help him", "선생님들은 그를 도울 것입니다"),
        ("polite he did not eat the big apples that I bought", "그는 제가 산 큰 사과들을 먹지 않았어요"),
        ("today we hear the song that she sold", "우리는 오늘 그녀가 판 노래를 듣는다"),
        ("the old farmer knows the city that you will build", "오래된 농부는 네가 지을 도시를 안다"),
        ("they do not bake the dumpling", "그들은 만두를 굽지 않는다"),
        ("formal the boy makes the box that the girls opened", "소년은 소녀들이 연 상자를 만듭니다"),
    ],
)
def test_sentences_that_people_have_read(english: str, korean: str) -> None:
    assert TASK.right(english) == korean


@pytest.mark.spec("translation.english", "translation.order")
@given(sentences)
def test_english_is_read_back_as_the_same_sentence(sentence: Sentence) -> None:
    again = parse(" ".join(sentence.english()))
    assert again == sentence
    assert TASK.right(" ".join(sentence.english())) == sentence.korean()
    if sentence.level == "plain":
        assert parse(" ".join(sentence.english()[1:])) == sentence


@pytest.mark.spec("translation.words")
def test_the_grammar_has_as_many_forms_as_it_says_and_no_word_twice() -> None:
    english, korean = forms()
    assert len(english) + len(korean) >= 2000
    assert len({noun.english for noun in NOUNS}) == len({noun.korean for noun in NOUNS}) == len(NOUNS)
    assert len({verb.base for verb in VERBS}) == len({verb.stem for verb in VERBS}) == len(VERBS)
    assert not [verb for verb in VERBS if verb.base == verb.past or set(verb.kinds) - set("patfwl")]
    for sentence in (draw(of, 2) for of in Draw(0, "forms").uniform(range(2000), NUMBERS).tolist()):
        assert set(sentence.english()) <= english
        assert set(sentence.korean().split()) <= korean


@pytest.mark.spec("translation.row")
@given(st.lists(sentences, min_size=1, max_size=4))
def test_a_row_is_english_the_mark_and_korean(drawn: list[Sentence]) -> None:
    batch, symbols = collate(drawn), TASK.vocabulary.symbols
    for row, sentence in enumerate(drawn):
        source, said = [*sentence.english(), "<to>"], list(sentence.korean())
        width = len(source) + len(said)
        assert [symbols[id] for id in batch.tokens[row, :width].tolist()] == source + said
        assert set(batch.tokens[row, width:].tolist()) <= {PAD}
        assert batch.real[row].sum() == width
        wanted = batch.targets[row, batch.scored[row]].tolist()
        assert [symbols[id] for id in wanted] == [*said, "<end>"]
        assert batch.scored[row].nonzero()[0, 0] == len(source) - 1
        assert TASK.answer(wanted) == TASK.answer(wanted[:-1]) == sentence.korean()
    assert TASK.vocabulary.ends == (TO,)
    assert TASK.vocabulary.stop == END


@pytest.mark.spec("translation.unseen")
@given(st.sampled_from(VERBS), st.sampled_from(NOUNS))
@example(VERBS[0], NOUNS[0])
def test_pairs_are_held_out_as_the_spec_says(verb: Verb, noun: Noun) -> None:
    assert held_out(verb.base, noun.english) == spec.held_out(verb.base, noun.english)
    assert Phrase(noun, True, "big").key == noun.english
    assert held_out("love", "you")


@pytest.mark.spec("translation.unseen", "translation.drawn")
def test_training_never_sees_an_unseen_pair_and_every_test_sentence_has_one() -> None:
    batch = TASK.batch(range(400), Draw(3, "problems", 5))
    seen = [read(batch.tokens[row].tolist()) for row in range(400)]
    assert not any(is_unseen(sentence) for sentence in seen)
    assert 120 < sum(sentence.clauses == 2 for sentence in seen) < 280
    for size in (1, 2):
        unseen = TASK.sentences("unseen", size, 200, 1)
        assert len(unseen) == 200
        assert all(sentence.clauses == size and any(held_out(*pair) for pair in sentence.pairs()) for sentence in unseen)
        assert not any(is_unseen(sentence) for sentence in TASK.sentences("seen", size, 200, 1))
    one = Translation(max_clauses=1).batch(range(50), Draw(3, "problems"))
    assert {read(one.tokens[row].tolist()).clauses for row in range(50)} == {1}
    two = Translation(min_clauses=2).batch(range(50), Draw(3, "problems"))
    assert {read(two.tokens[row].tolist()).clauses for row in range(50)} == {2}


def read(ids: list[int]) -> Sentence:
    return parse(" ".join(TASK.vocabulary.symbols[id] for id in ids[: ids.index(TO)]))


@pytest.mark.spec("translation.drawn")
@given(st.lists(st.sampled_from([0.0, 0.1, 0.29, 0.31, 0.5, 0.9, 0.999999]), min_size=NUMBERS, max_size=NUMBERS))
def test_a_drawn_sentence_is_one_of_the_grammar(given_numbers: list[float]) -> None:
    for clauses in (1, 2):
        sentence = draw(given_numbers, clauses)
        assert sentence.clauses == clauses
        head = sentence.object.head
        assert ("p" if not isinstance(head, Noun) else head.kind) in sentence.verb.kinds
        assert head != sentence.subject.head or isinstance(head, Noun)
        assert sentence.negative == (given_numbers[2] < 0.3)
        assert bool(sentence.adverb) == (given_numbers[3] < 0.3)
        assert isinstance(sentence.subject.head, Noun) == (given_numbers[5] >= 0.5)


def test_the_longest_sentence_is_as_long_as_any() -> None:
    for clauses in (1, 2):
        top = longest(clauses)
        drawn = (draw(of, clauses) for of in Draw(0, "long").uniform(range(3000), NUMBERS).tolist())
        assert max(len(s.english()) + len(s.korean()) for s in drawn) <= len(top.english()) + len(top.korean())
        assert len(top.korean()) < MAX_SYLLABLES
        assert top.clauses == clauses


@pytest.mark.spec("translation.refused")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty; write a sentence, such as 'I love you'"),
        (" . ", "the text is empty"),
        ("will", r"word 1 of 'will' must be a pronoun, or `the` and a noun: got 'will'\.$"),
        (
            "I adore you",
            "word 2 of .* must be a verb that fits its subject: got 'adore'; `looplm translate --words` lists all words",
        ),
        ("he love you", "must be a verb that fits its subject: got 'love'"),
        ("I love the zebra", "word 4 of .* must be a noun, or an adjective and a noun: got 'zebra'"),
        ("I love the old", "word 5 of .* must be a noun: got the end"),
        ("I love cats", "word 3 of .* must be a pronoun, or `the` and a noun: got 'cats'"),
        ("I love you now", "word 4 of .* must be the last one, or `that` and a clause: got 'now'"),
        ("I love you that he sees", "a relative clause says something of a noun"),
        ("I love the dog that he does not see", "is not negated"),
    ],
)
def test_what_is_no_sentence_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TASK.prompt(text)


@pytest.mark.spec("translation.english")
@pytest.mark.parametrize("text", ["I love you", "i love you", "I Love You.", "PLAIN I love you", "plain: I love you . "])
def test_capitals_and_a_full_stop_do_not_count(text: str) -> None:
    assert TASK.prompt(text) == TASK.prompt("plain I love you")


def test_the_words_that_are_listed_are_those_of_the_grammar(capsys: pytest.CaptureFixture[str]) -> None:
    english, _ = forms()
    listed = {word for words in words_by_kind().values() for entry in words for word in entry.strip(")").split(" (")}
    assert listed <= english
    others = {plural_of(noun.english) for noun in NOUNS} | {third_of(verb.base) for verb in VERBS}
    assert english == listed | others
    assert main(["translate", "--words"]) == 0
    assert "verbs: avoid (avoided), " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "size", "message"), [("other", 1, "there are: unseen, seen"), ("seen", 3, "1 or 2 clauses: got 3")]
)
def test_a_test_set_that_is_none_is_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TASK.suite(name, size, 3, 0)
    with pytest.raises(ValidationError, match="must not exceed"):
        Translation(min_clauses=2, max_clauses=1)
    assert set(ADJECTIVES) & set(ADVERBS) == set()
    assert len(PRONOUNS) == 6
