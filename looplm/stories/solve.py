"""An exact solver: reads the sentences of a story, and says the answer and the facts that it follows from."""

from collections.abc import Sequence

from looplm.stories.format import Question
from looplm.stories.grammar import LANGUAGES, Language, Saying, answer_in, readings

Solution = tuple[tuple[str, ...], tuple[int, ...]]
"""The names of the answer, and the indices of the facts that it needs."""
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def solve(question: Question) -> tuple[str, tuple[int, ...]] | None:
    """The answer and the supporting facts, where all sentences are of the grammar of one language and an answer follows.

    Spec: [reasoning.solved][].
    """
    for language in LANGUAGES:
        if found := solve_in(question, language):
            return found
    return None


def solve_in(question: Question, language: Language) -> tuple[str, tuple[int, ...]] | None:
    """The same in one language."""
    known = readings(language)
    facts, asked = [known.get(fact) for fact in question.facts], known.get(question.words)
    if asked is None or None in facts:
        return None
    solution = _SOLVERS[asked.kind]([fact for fact in facts if fact], asked.about) if asked.kind in _SOLVERS else None
    return solution and (answer_in(solution[0], language), solution[1])


def _where(facts: Sequence[Saying], about: tuple[str, ...]) -> Solution | None:
    """Where someone went last."""
    moves = [i for i, fact in enumerate(facts) if fact.kind == "move" and fact.about[0] == about[0]]
    return ((facts[moves[-1]].about[1],), (moves[-1],)) if moves else None


def _where_thing(facts: Sequence[Saying], about: tuple[str, ...]) -> Solution | None:
    """Where the one is who has it, or where the one was who dropped it."""
    handled = [i for i, fact in enumerate(facts) if fact.kind in ("take", "drop") and fact.about[1] == about[0]]
    if not handled:
        return None
    last = facts[handled[-1]]
    until = len(facts) if last.kind == "take" else handled[-1]
    found = _where(facts[:until], last.about[:1])
    return found and (found[0], (handled[-1], *found[1]))


def _afraid_of(facts: Sequence[Saying], about: tuple[str, ...]) -> Solution | None:
    """What one's kind is afraid of."""
    for i, own in enumerate(facts):
        for j, fear in enumerate(facts):
            if own.kind == "kind" and own.about[0] == about[0] and fear.kind == "fear" and fear.about[0] == own.about[1]:
                return fear.about[1:], (i, j)
    return None


def _what_colour(facts: Sequence[Saying], about: tuple[str, ...]) -> Solution | None:
    """The colour told last of one of the same kind."""
    kinds = {fact.about[0]: (fact.about[1], i) for i, fact in enumerate(facts) if fact.kind == "kind"}
    own = kinds.get(about[0])
    for i in reversed(range(len(facts))):
        if facts[i].kind == "colour" and own and (other := kinds.get(facts[i].about[0])) and other[0] == own[0]:
            return facts[i].about[1:], tuple(dict.fromkeys((own[1], other[1], i)))
    return None


def _path(facts: Sequence[Saying], about: tuple[str, ...]) -> Solution | None:
    """The shortest way, where there is one only."""
    steps: dict[str, list[tuple[str, str, int]]] = {}
    for i, fact in enumerate(facts):
        if fact.kind == "beside":
            there, direction, here = fact.about
            steps.setdefault(here, []).append((there, direction, i))
            steps.setdefault(there, []).append((here, OPPOSITE[direction], i))
    ways: list[tuple[str, Solution]] = [(about[0], ((), ()))]
    seen = {about[0]}
    while ways:
        ways = [
            (there, ((*names, direction), (*needed, i)))
            for at, (names, needed) in ways
            for there, direction, i in steps.get(at, [])
            if there not in seen
        ]
        seen |= {at for at, _ in ways}
        if arrived := [solution for at, solution in ways if at == about[1]]:
            return arrived[0] if len({names for names, _ in arrived}) == 1 else None
    return None


_SOLVERS = {
    "where": _where,
    "where-thing": _where_thing,
    "afraid-of": _afraid_of,
    "what-colour": _what_colour,
    "path": _path,
}
