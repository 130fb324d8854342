"""Stories of our own: each answer is proven by the solver, in both languages, and follows from the facts that it needs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looplm.cli import main
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.hangul import PARTICLES
from looplm.settings import parse
from looplm.spec import oracle
from looplm.stories.draw import SIMULATED, Choices, Line
from looplm.stories.format import Question, part_of, words_of
from looplm.stories.format import parse as read_stories
from looplm.stories.grammar import COLOURS, LANGUAGES, QUESTIONS, Language, answer_in, say, word, words_said
from looplm.stories.rows import PAD, parse_question, spread, text_of
from looplm.stories.simulate import simulate
from looplm.stories.solve import solve, solve_in
from looplm.tasks.babi import Babi
from looplm.tasks.stories import MOST_FACTS, Stories, drawn

spec, world = oracle("reasoning"), oracle("world")
numbers = st.sampled_from(list(SIMULATED))
seeds = st.integers(0, 9999)


def story(number: int, seed: int) -> list[Line]:
    rule, rounds = SIMULATED[number]
    return rule(Choices(Draw(seed, "test"), 0), rounds)


@pytest.mark.spec("reasoning.simulated", "reasoning.solved", "reasoning.korean")
@given(numbers, seeds, st.sampled_from(LANGUAGES))
def test_every_answer_is_proven_and_its_facts_suffice(number: int, seed: int, language: Language) -> None:
    text = "\n".join(simulate(2, seed, number, language))
    assert text == "\n".join(simulate(2, seed, number, language))
    for told in read_stories(text, "simulated"):
        assert len(told.questions) == SIMULATED[number][1]
        for question in told.questions:
            found = solve_in(question, language)
            assert found is not None
            assert (found[0], sorted(found[1])) == (question.answer, sorted(question.supporting))
            enough = replace(question, facts=tuple(question.facts[i] for i in sorted(question.supporting)))
            assert solve(enough) is not None
            assert solve(enough)[0] == question.answer  # type: ignore[index]


@pytest.mark.spec("reasoning.korean", "reasoning.simulated")
@given(numbers, seeds)
def test_the_korean_edition_tells_the_same_stories(number: int, seed: int) -> None:
    english, korean = (list(simulate(2, seed, number, language)) for language in LANGUAGES)
    assert len(english) == len(korean)
    for one, other in zip(english, korean, strict=True):
        assert one.split(" ")[0] == other.split(" ")[0]
        assert one.split("\t")[2:] == other.split("\t")[2:]
        assert not any("a" <= letter <= "z" for letter in other.lower())


@pytest.mark.spec("reasoning.korean")
@given(numbers, seeds)
def test_particles_are_those_of_the_small_world(number: int, seed: int) -> None:
    names = {word(name, "ko") for line in story(number, seed) for name in line.saying.about}
    for line in story(number, seed):
        for said in say(line.saying, "ko", line.way).split():
            noun = max((name for name in names if said.startswith(name)), key=len, default="")
            ending = said.removeprefix(noun)
            pair = next((forms for forms in [*PARTICLES.values(), ("이다", "다")] if ending in forms and noun), None)
            if pair and pair[0] != pair[1]:
                assert said == world.particle(noun, *pair)


def moved(facts: Sequence[tuple[str, ...]], who: str) -> str:
    return [place for kind, name, place in facts if (kind, name) == ("move", who)][-1]


@pytest.mark.spec("reasoning.moves")
@given(seeds)
def test_one_who_moved_is_where_they_went_last(seed: int) -> None:
    facts: list[tuple[str, ...]] = []
    for line in story(1, seed):
        if line.saying.kind == "where":
            assert line.answer == (moved(facts, line.saying.about[0]),)
            assert facts[line.supporting[0]][1:] == (line.saying.about[0], line.answer[0])
        else:
            who, place = line.saying.about
            assert [where for _, name, where in facts if name == who][-1:] != [place]
            facts.append((line.saying.kind, who, place))


@pytest.mark.spec("reasoning.carried")
@given(seeds)
def test_nobody_takes_what_is_elsewhere_and_a_thing_is_where_the_spec_says(seed: int) -> None:
    facts: list[tuple[str, ...]] = []
    holder: dict[str, str | None] = {}
    lies: dict[str, str] = {}
    for line in story(2, seed):
        kind, about = line.saying.kind, line.saying.about
        if kind == "where-thing":
            assert line.answer == (spec.place_of(about[0], facts),)
            assert len(line.supporting) == 2
            continue
        who, what = about
        if kind == "take":
            assert holder.get(what) is None
            assert what not in lies or lies[what] == moved(facts, who)
            holder[what] = who
        elif kind == "drop":
            assert holder[what] == who
            holder[what], lies[what] = None, moved(facts, who)
        facts.append((kind, *about))


@pytest.mark.spec("reasoning.fears")
@given(seeds)
def test_kinds_are_afraid_of_another_one(seed: int) -> None:
    lines = story(15, seed)
    afraid, kinds = (
        {line.saying.about[0]: line.saying.about[1] for line in lines if line.saying.kind == kind} for kind in ("fear", "kind")
    )
    assert (len(afraid), len(kinds)) == (4, 4)
    assert all(kind != other for kind, other in afraid.items())
    for line in lines:
        if line.saying.kind == "afraid-of":
            assert line.answer == (afraid[kinds[line.saying.about[0]]],)


@pytest.mark.spec("reasoning.paths")
@given(seeds)
def test_places_stand_on_a_grid_and_the_way_leads_there(seed: int) -> None:
    *facts, asked = story(19, seed)
    steps = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
    spots = {facts[0].saying.about[2]: (0, 0)}
    for _ in facts:
        for there, direction, here in (line.saying.about for line in facts):
            (dx, dy) = steps[direction]
            if here in spots:
                x, y = spots[here]
                assert spots.setdefault(there, (x + dx, y + dy)) == (x + dx, y + dy)
            elif there in spots:
                x, y = spots[there]
                spots[here] = (x - dx, y - dy)
    assert len(spots) == len(set(spots.values())) == 6
    assert len(facts) == 5
    start, end = asked.saying.about
    x, y = spots[start]
    for direction in asked.answer:
        x, y = x + steps[direction][0], y + steps[direction][1]
    assert spots[end] == (x, y)
    assert len(asked.answer) == 2


@pytest.mark.spec("reasoning.solved")
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Mary went to the kitchen. Where is Mary?", "kitchen"),
        ("Mary took the milk. Mary went to the kitchen. Where is the milk?", "kitchen"),
        ("민수는 우유를 집었다. 민수는 부엌으로 갔다. 우유는 어디에 있는가?", "부엌"),
        ("Mary is a cat. Cats are afraid of wolves. What is Mary afraid of?", "wolf"),
        ("Mary is a lion. Mary is gray. What color is Mary?", "gray"),
        ("The kitchen is north of the garden. How do you go from the kitchen to the garden?", "s"),
        ("Mary went to the kitchen. Where is John?", None),
        ("Mary took the milk. Where is the milk?", None),
        ("John went to the kitchen. Where is the milk?", None),
        ("Mary is a cat. What is Mary afraid of?", None),
        ("Mary is a lion. John is gray. What color is Mary?", None),
        ("The kitchen is north of the garden. How do you go from the kitchen to the office?", None),
        ("Mary sang. Where is Mary?", None),
        ("Mary went to the kitchen. 민수는 어디에 있는가?", None),
    ],
)
def test_what_follows_is_said_and_what_does_not_is_not(text: str, answer: str | None) -> None:
    found = solve(parse_question(text))
    assert (found and found[0]) == answer


@pytest.mark.spec("reasoning.solved")
def test_of_two_ways_there_is_none() -> None:
    square = ["The kitchen is north of the garden", "The office is east of the garden"]
    square += ["The bathroom is east of the kitchen", "The bathroom is north of the office"]
    question = Question(tuple(map(words_of, square)), words_of("How do you go from the garden to the bathroom"), "", (), 0)
    assert solve(question) is None
    assert solve(replace(question, facts=question.facts[1:])) == ("e,n", (0, 2))


@pytest.mark.spec("reasoning.words", "reasoning.korean")
def test_korean_is_read_in_composed_syllables() -> None:
    import unicodedata

    text = "민수는 부엌으로 갔다!"
    assert (
        words_of(unicodedata.normalize("NFD", text))
        == words_of(text)
        == tuple(spec.words(text))
        == ("민수는", "부엌으로", "갔다")
    )


@pytest.mark.spec("reasoning.empty")
@given(numbers, seeds, st.lists(st.booleans(), min_size=MOST_FACTS, max_size=MOST_FACTS))
def test_empty_facts_stand_where_they_are_put_and_support_stays(number: int, seed: int, before: list[bool]) -> None:
    question = drawn(number, "en", Draw(seed, "test"), 0)
    apart = spread(question, before)
    assert [list(fact) for fact in apart.facts] == spec.spread([list(fact) for fact in question.facts], before)
    assert [apart.facts[i] for i in apart.supporting] == [question.facts[i] for i in question.supporting]


@pytest.mark.spec("reasoning.empty")
def test_training_has_as_many_empty_facts_as_asked_for_and_tests_have_none(tmp_path: Path) -> None:
    path = tmp_path / "qa1_train.txt"
    path.write_text("\n".join(simulate(300, 0, 1)))
    for task in (Babi(path=str(path), number=1, empty=0.25), Stories(numbers=(1,), empty=0.25)):
        name = next(iter(task.suites))
        for tokens, share in (
            (task.batch(range(900), Draw(0, "problems")).tokens, 0.25),
            (task.suite(name, 1, 90, 0).tokens, 0),
        ):
            ends = tokens == 1
            empty = ends & torch_shifted(ends | (tokens == PAD))
            full = int(ends.sum() - empty.sum())
            assert abs(int(empty.sum()) / full - share) < 0.03 * (share > 0) + 1e-9


def torch_shifted(mask: Any) -> Any:
    shifted = mask.roll(1, 1)
    shifted[:, 0] = True
    return shifted


@pytest.mark.spec("reasoning.drawn", "tasks.held-out")
@given(st.integers(0, 99))
def test_training_and_test_never_meet(seed: int) -> None:
    task = Stories()
    symbols = task.vocabulary.symbols
    batch = task.batch(range(40), Draw(seed, "problems"))
    for row, real in zip(batch.tokens, batch.real, strict=True):
        said = " ".join(symbols[id] for id in row[real].tolist()).replace(" .", ".").replace(" ?", "?")
        assert part_of(said) == "training"
    for part in ("test", "validation"):
        for language in LANGUAGES:
            asked = Stories(part=part).questions(language, 19, 9, seed)
            assert {part_of(text_of(question)) for question in asked} == {part}
            assert len({text_of(question) for question in asked}) == 9
            assert all(solve(question) == (question.answer, question.supporting) for question in asked)


@pytest.mark.spec("reasoning.drawn")
@pytest.mark.parametrize(("weights", "shares"), [((), (0.2, 0.2)), ((2, 2, 1, 1, 4), (0.1, 0.1))])
def test_tasks_are_drawn_by_weight_and_languages_evenly(weights: Any, shares: tuple[float, float]) -> None:
    task = Stories(weights=weights)
    ids = {symbol: id for id, symbol in enumerate(task.vocabulary.symbols)}
    tokens = task.batch(range(2000), Draw(0, "problems")).tokens
    korean = (tokens == ids["무엇을"]).any(1) | (tokens == ids["무슨"]).any(1)
    english = (tokens == ids["afraid"]).any(1) | (tokens == ids["color"]).any(1)
    for drawn_of, share in zip((korean, english), shares, strict=True):
        assert abs(float(drawn_of.double().mean()) - share) < 0.03


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"numbers": [3]}, r"`numbers` must be of 1, 2, 15, 16, 19, whose stories are drawn: got 3"),
        ({"numbers": [1, 1]}, r"`numbers` must differ: got \[1, 1\]"),
        ({"weights": [1]}, r"`weights` must be as many as `numbers`, 5: got 1"),
        ({"languages": ["en", "en"]}, r"`languages` must differ"),
        ({"languages": ["fr"]}, r"`languages.0`"),
    ],
)
def test_stories_that_are_none_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(Stories, settings, where="test")
    with pytest.raises(InputError, match=r"no test set 'fr' of stories; there are: en, ko"):
        Stories().suite("fr", 1, 1, 0)
    with pytest.raises(InputError, match="the number of a task"):
        Stories(numbers=(1,)).suite("en", 2, 1, 0)


def test_a_file_of_stories_is_written_in_either_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["stories", "qa2_ko_train.txt", "--task", "2", "--language", "ko", "--count", "40"]) == 0
    task = Babi(path="qa2_ko_train.txt", number=2)
    assert "부엌으로" in task.words
    assert set(task.answers) <= {word(name, "ko") for name in ("kitchen", "bedroom", "garden", "office", "bathroom", "hallway")}
    assert main(["stories", "other.txt", "--task", "3"]) == 2
    assert "`--task` must be one of 1, 2, 15, 16, 19, whose stories are drawn: got 3" in capsys.readouterr().err


def test_every_word_is_one_answer_or_none() -> None:
    assert answer_in(("north", "east"), "en") == "n,e"
    assert answer_in(("north", "east"), "ko") == "북,동"
    assert [answer_in((name,), "ko") for name in COLOURS] == ["하얀색", "회색", "초록색", "노란색"]
    assert set(QUESTIONS) <= {"where", "where-thing", "afraid-of", "what-colour", "path"}
    assert words_said(story(1, 0)[0].saying, "en", 0)[1] == "moved"
    with pytest.raises(KeyError):
        word("nobody", "en")
