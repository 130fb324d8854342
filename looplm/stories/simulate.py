"""Stories of our own in the format of the files: for a look, or for training, without any download."""

from collections.abc import Iterator

from looplm.draws import Draw
from looplm.stories.draw import SIMULATED, Choices, Line
from looplm.stories.grammar import QUESTIONS, Language, answer_in, say


def simulate(count: int, seed: int, number: int = 16, language: Language = "en") -> Iterator[str]:
    """Lines of so many stories of a task.

    Args:
        count: of stories.
        seed: fixes them, in both languages alike.
        number: of the task, one of `SIMULATED`.
        language: of the sentences.

    Spec: [reasoning.simulated][], [reasoning.korean][].
    """
    rule, rounds = SIMULATED[number]
    draw = Draw(seed, f"stories {number}")
    for story in range(count):
        yield from lines_of(rule(Choices(draw, story), rounds), language)


def lines_of(story: list[Line], language: Language) -> Iterator[str]:
    """A story in the format of the files.

    Spec: [reasoning.format][].
    """
    facts: list[int] = []
    for place, line in enumerate(story, 1):
        said = say(line.saying, language, line.way)
        if line.saying.kind in QUESTIONS:
            needed = " ".join(str(facts[i]) for i in line.supporting)
            yield f"{place} {said}?\t{answer_in(line.answer, language)}\t{needed}"
        else:
            facts.append(place)
            yield f"{place} {said}."
