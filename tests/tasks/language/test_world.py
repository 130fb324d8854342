"""The small world reads what it writes and nothing that is wrong, and its stories keep who has what."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looplm.cli import main
from looplm.draws import Draw
from looplm.hangul import PARTICLES, Ending, infinitive, inflect, with_particle
from looplm.spec import oracle
from looplm.tasks.language.world import lexicon
from looplm.tasks.language.world.grammar import LEVELS, MOVES, PATTERNS, Sentence, flips, read, word_form, words_of, write
from looplm.tasks.language.world.judge import judge, words
from looplm.tasks.language.world.stories import Contradiction, after, keeps, story

spec = oracle("world")
SYLLABLE = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
STEM = st.text(SYLLABLE, min_size=1, max_size=3).filter(
    lambda stem: (ord(stem[-1]) - 0xAC00) % 28 or (ord(stem[-1]) - 0xAC00) // 28 % 21 in (0, 1, 4, 5, 6, 8, 11, 13, 20)
)
STORY = st.builds(story, st.integers(0, 2**20), st.integers(0, 2**20))
PEOPLE = st.sampled_from(["민수", "할머니", "곰", ""])


@st.composite
def lines(draw: st.DrawFn) -> str:
    """Any sentence, its words drawn one by one: not only those that fit a story."""
    pattern = draw(st.sampled_from(PATTERNS))
    listeners = [who for who, level in LEVELS.items() if pattern.level in (None, level)]
    roles: dict[str, str] = {}
    for word in pattern.words:
        if not isinstance(word, str) and word.role not in roles:
            choices = listeners if word.role == "b" else words_of(word.role)
            others = {roles.get(role) for role in "abctu"} if word.role in "abctu" else set()
            roles[word.role] = draw(st.sampled_from([choice for choice in choices if choice not in others]))
    return write(pattern, roles)


@pytest.mark.spec("world.particle")
@given(st.text(SYLLABLE, min_size=1), st.sampled_from(sorted(PARTICLES)))
def test_a_particle_is_as_the_spec_says(word: str, particle: str) -> None:
    assert with_particle(word, particle) == spec.particle(word, *PARTICLES[particle])


@pytest.mark.spec("world.particle")
@pytest.mark.parametrize(
    ("word", "particle", "right"),
    [
        ("밤", "은", "밤은"),
        ("배", "은", "배는"),
        ("서울", "으로", "서울로"),
        ("강", "으로", "강으로"),
        ("곰", "아", "곰아"),
        ("민수", "와", "민수와"),
    ],
)
def test_particles_that_people_know(word: str, particle: str, right: str) -> None:
    assert with_particle(word, particle) == right


@pytest.mark.spec("world.vowel-harmony")
@given(STEM)
def test_harmony_is_as_the_spec_says(stem: str) -> None:
    assert infinitive(stem) == spec.infinitive(stem)


@pytest.mark.spec("world.ending")
@given(STEM, st.sampled_from(get_args(Ending)), STEM | st.just(""))
def test_an_ending_is_as_the_spec_says(stem: str, ending: Ending, irregular: str) -> None:
    assert inflect(stem, ending, irregular) == spec.inflected(stem, ending, irregular or stem)


@pytest.mark.spec("world.ending", "world.vowel-harmony")
@pytest.mark.parametrize(
    ("stem", "ending", "right"),
    [
        ("받", "past", "받았다"),
        ("주", "past-polite", "줬어요"),
        ("발견하", "past-formal", "발견했습니다"),
        ("만지", "past", "만졌다"),
        ("가", "imperative", "가라"),
        ("안", "imperative-polite", "안으세요"),
        ("들", "imperative-formal", "드십시오"),
        ("보", "because", "봐서"),
    ],
)
def test_endings_that_people_know(stem: str, ending: Ending, right: str) -> None:
    assert inflect(stem, ending) == right


def test_a_stem_that_no_rule_contracts_is_refused() -> None:
    with pytest.raises(ValueError, match="'예쁘' ends in a vowel"):
        infinitive("예쁘")


@pytest.mark.spec("world.parser", "world.level")
@given(lines())
def test_every_sentence_is_read_as_it_was_written(line: str) -> None:
    sentence = read(line)
    assert sentence is not None
    assert write(sentence.pattern, sentence.roles) == line
    if sentence.pattern.level:
        assert sentence.pattern.level == LEVELS[sentence.roles["b"]]


@pytest.mark.spec("world.parser")
@given(st.text() | st.lists(st.sampled_from(story(0)[0].split(" "))).map(" ".join))
def test_what_no_pattern_gives_is_not_read(line: str) -> None:
    sentence = read(line)
    assert sentence is None or write(sentence.pattern, sentence.roles) == line


@pytest.mark.spec("world.delimiter")
@given(lines())
def test_a_delimiter_parts_nouns_from_particles(line: str) -> None:
    sentence = read(line)
    assert sentence is not None
    marked = write(sentence.pattern, sentence.roles, "|")
    assert marked.replace("|", "") == line
    for word, text in zip(sentence.pattern.words, marked.split(" "), strict=True):
        if isinstance(word, str) or word.role not in "abctupk":
            assert "|" not in text
        else:
            noun = sentence.roles[word.role]
            form = word_form(word.role, noun, word.form)
            assert text == spec.marked(word.before, noun, form, word.after, word.role in "abc", "|")


@pytest.mark.spec("world.level")
@pytest.mark.parametrize(
    ("line", "right"),
    [
        ('민수가 곰에게 말했다. "곰아, 나에게 사과를 얼른 줘라."', True),
        ('민수가 할머니에게 말했다. "할머니, 저에게 사과를 얼른 주세요."', True),
        ('민수가 임금님에게 말했다. "임금님, 저에게 사과를 얼른 주십시오."', True),
        ('민수가 할머니에게 말했다. "할머니, 저에게 사과를 얼른 줘라."', False),
        ('민수가 할머니에게 말했다. "할머니, 나에게 사과를 얼른 주세요."', False),
        ('민수가 곰에게 말했다. "곰야, 나에게 사과를 얼른 줘라."', False),
        ('민수가 임금님에게 말했다. "임금님, 저에게 사과를 얼른 주세요."', False),
        ('민수가 임금님에게 말했다. "할머니, 저에게 사과를 얼른 주세요."', False),
        ('민수가 민수에게 말했다. "민수야, 나에게 사과를 얼른 줘라."', False),
    ],
)
def test_levels_follow_who_is_spoken_to(line: str, right: bool) -> None:
    assert (read(line) is not None) == right


COUNTED = [0, 0]
"""Flips that were drawn, and those of them that were read."""


@given(lines(), st.data())
@settings(max_examples=400)
def draw_flips(line: str, data: st.DataObject) -> None:
    changed = data.draw(st.sampled_from(flips(line)))
    assert changed != line
    COUNTED[0] += 1
    COUNTED[1] += read(changed) is not None


@pytest.mark.spec("world.flips")
def test_of_flipped_sentences_hardly_any_is_read() -> None:
    COUNTED[:] = [0, 0]
    draw_flips()
    assert COUNTED[0] >= 100
    assert COUNTED[1] <= 0.01 * COUNTED[0], f"{COUNTED[1]} of {COUNTED[0]} wrong sentences were read"


@pytest.mark.spec("world.flips")
@pytest.mark.parametrize(
    "changed",
    [
        "이윽고 곰는 민수에게 사과를 살짝 줬다.",
        "이윽고 곰은 민수에게서 사과를 살짝 줬다.",
        "이윽고 곰은 민수에게 사과을 살짝 줬다.",
        "이윽고 곰이 민수에게 사과를 살짝 줬다.",
        "이윽고 곰은 민수에게 사과를 살짝 줬어요.",
        "이윽고 곰은 민수에게 사과를 살짝 주세요.",
    ],
)
def test_flips_are_of_every_kind(changed: str) -> None:
    right = "이윽고 곰은 민수에게 사과를 살짝 줬다."
    assert read(right) and changed in flips(right) and read(changed) is None


def test_only_a_right_sentence_is_flipped() -> None:
    with pytest.raises(ValueError, match="only a right sentence"):
        flips("곰는 잔다.")


@pytest.mark.spec("world.who-has-what")
@given(
    st.dictionaries(st.sampled_from(["사과", "배"]), PEOPLE),
    st.sampled_from(sorted(MOVES)),
    st.permutations(["민수", "할머니", "곰"]),
    st.permutations(["사과", "배"]),
)
def test_a_sentence_moves_things_as_the_spec_says(holders: dict[str, str], kind: str, who: list[str], what: list[str]) -> None:
    roles = dict(zip("abctu", [*who, *what], strict=True))
    moves = [(roles[thing], roles.get(held, ""), roles.get(then, "")) for thing, held, then in MOVES[kind]]
    expected = spec.after(holders, moves)
    sentence = Sentence(kind, roles, PATTERNS[0])
    if expected is None:
        with pytest.raises(Contradiction):
            after(holders, sentence)
    else:
        assert after(holders, sentence) == expected


@pytest.mark.spec("world.who-has-what", "world.parser")
@given(STORY)
def test_every_story_is_read_and_keeps_who_has_what(made: list[str]) -> None:
    assert all(read(line) for line in made)
    assert keeps(made)


@pytest.mark.spec("world.who-has-what")
def test_a_story_that_forgets_does_not_keep() -> None:
    found, given_away = "이윽고 곰은 숲에서 빨간 사과를 주웠다.", "이윽고 곰은 민수에게 사과를 살짝 줬다."
    assert keeps([found, given_away])
    assert not keeps([given_away])
    assert not keeps([found, given_away, given_away])
    assert not keeps([found, "곰은 잔다."])


@pytest.mark.spec("training.keyed-randomness")
def test_a_story_follows_from_its_number_and_seed() -> None:
    assert story(7, 1) == story(7, 1) != story(7, 2)
    assert len({"".join(story(number)) for number in range(50)}) == 50
    assert Draw(0, "world").uniform(range(3, 4), 512)[0].equal(Draw(0, "world").uniform(range(5), 512)[3])


@pytest.mark.spec("world.judged")
def test_shares_are_counted_over_first_sentences_all_stories_and_different_ones() -> None:
    found, lost = "이윽고 곰은 숲에서 빨간 사과를 주웠다.", "이윽고 곰은 깊은 산에서 사과를 잃었다."
    counts = judge([[found, lost], [found, "곰는 잔다."], [lost]], {lost}, sentences=4)
    assert (counts.parsed, counts.sentences) == (3, 4)
    assert (counts.kept, counts.stories) == (1, 3)
    assert (counts.new, counts.distinct) == (2, 3)
    assert counts.as_json()["parse"]["right"] == 3


def test_the_world_has_1500_words() -> None:
    assert words()["forms"] >= 1500
    for names in (lexicon.FRIENDS, lexicon.ELDERS, lexicon.TITLES, lexicon.THINGS, lexicon.PLACES):
        assert len(set(names)) == len(names)


def test_the_command_writes_documents_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "world.txt"
    assert main(["world", "write", str(out), "--stories", "3", "--seed", "5"]) == 0
    assert out.read_text(encoding="utf-8").split("\f") == ["\n".join(story(number, 5)) + "\n" for number in range(3)]
    marked = tmp_path / "marked.txt"
    assert main(["world", "write", str(marked), "--stories", "3", "--seed", "5", "--delimiter", "|"]) == 0
    assert "|" in marked.read_text(encoding="utf-8")
    assert marked.read_text(encoding="utf-8").replace("|", "") == out.read_text(encoding="utf-8")
    assert main(["world", "write", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["world", "write", str(tmp_path / "new"), "--stories", "0"]) == 2
    assert "`--stories` must be from 1" in capsys.readouterr().err
    assert main(["world", "judge", "adder", str(out)]) == 2
    assert "is no model of text" in capsys.readouterr().err
