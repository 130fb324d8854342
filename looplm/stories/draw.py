"""Stories drawn by rule, each with the answers that the world has in which they happen; nothing of words."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from looplm.draws import Draw
from looplm.stories.grammar import COLOURED, COLOURS, DIRECTIONS, HUNTED, NAMES, PLACES, THINGS, WAYS, Saying

_AT_A_TIME = 128
"""Random numbers; most stories take fewer."""
_ONE_IN = 8
"""Of so many stories of task 16, one may have more names of the asked one's kind."""
_STEPS = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
Item = TypeVar("Item")


@dataclass(frozen=True)
class Line:
    """A fact, or a question with its answer."""

    saying: Saying
    way: int = 0
    """In which of its ways it is said."""
    answer: tuple[str, ...] = ()
    """Names; of a fact there is none."""
    supporting: tuple[int, ...] = ()
    """Indices of the facts that are needed, among the facts."""


class Choices:
    """Random choices that follow from a draw and the number of a row.

    Spec: [training.keyed-randomness][].
    """

    def __init__(self, draw: Draw, row: int) -> None:
        self._numbers = _numbers(draw, row)

    def below(self, size: int) -> int:
        """An integer from 0 to size - 1."""
        return int(next(self._numbers) * size)

    def one_of(self, items: Sequence[Item]) -> Item:
        """One of some items."""
        return items[self.below(len(items))]

    def order(self, items: Sequence[Item], size: int | None = None) -> list[Item]:
        """The items in a random order, or so many of them."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(len(left) if size is None else size)]

    def fact(self, kind: str, *about: str) -> Line:
        """Said in one of its ways."""
        return Line(Saying(kind, about), self.below(WAYS[kind]))


def _numbers(draw: Draw, row: int) -> Iterator[float]:
    for part in count():
        yield from draw.of(str(part)).uniform(range(row, row + 1), _AT_A_TIME)[0].tolist()


def moves(choices: Choices, rounds: int) -> list[Line]:
    """Task 1: four people move about; after every two moves one is asked for who has moved.

    Spec: [reasoning.moves][].
    """
    people, lines, at = choices.order(list(NAMES), 4), [], _Whereabouts()
    for _ in range(rounds):
        for _ in range(2):
            lines.append(at.move(choices, choices.one_of(people)))
        who = choices.one_of([name for name in people if name in at.places])
        lines.append(Line(Saying("where", (who,)), 0, (at.places[who],), (at.moved[who],)))
    return lines


def carried(choices: Choices, rounds: int) -> list[Line]:
    """Task 2: people move, take things and drop them; one is asked for whose place follows.

    Spec: [reasoning.carried][].
    """
    people, things = choices.order(list(NAMES), 4), choices.order(list(THINGS), 3)
    lines, at = [], _Whereabouts()
    for _ in range(rounds):
        events, least = 0, 2 + choices.below(4)
        while events < least or not at.known():
            lines.append(at.event(choices, people, things))
            events += 1
        thing = choices.one_of(at.known())
        place, supporting = at.place_of(thing)
        lines.append(Line(Saying("where-thing", (thing,)), 0, (place,), supporting))
    return lines


class _Whereabouts:
    """Who is where, and has what; things lie where nobody knows until someone takes them."""

    def __init__(self) -> None:
        self.facts = 0
        self.places: dict[str, str] = {}
        self.moved: dict[str, int] = {}
        """Which fact said that someone went where they are."""
        self.holder: dict[str, str] = {}
        self.handled: dict[str, int] = {}
        """Which fact said last that a thing was taken or dropped."""
        self.lying: dict[str, tuple[str, int]] = {}
        """Where it was dropped, and which fact had said that who dropped it was there."""

    def move(self, choices: Choices, who: str) -> Line:
        place = choices.one_of([each for each in PLACES if each != self.places.get(who)])
        self.places[who], self.moved[who] = place, self._count()
        return choices.fact("move", who, place)

    def event(self, choices: Choices, people: Sequence[str], things: Sequence[str]) -> Line:
        """What comes next: half of all events are moves."""
        who = choices.one_of(people)
        held = [thing for thing in things if self.holder.get(thing) == who and who in self.places]
        free = [thing for thing in things if thing not in self.holder and self._can_take(who, thing)]
        if not (held or free) or choices.below(2):
            return self.move(choices, who)
        thing = choices.one_of([*held, *free])
        self.handled[thing] = self._count()
        if thing in free:
            self.holder[thing] = who
            return choices.fact("take", who, thing)
        del self.holder[thing]
        self.lying[thing] = self.places[who], self.moved[who]
        return choices.fact("drop", who, thing)

    def known(self) -> list[str]:
        """Things whose place follows from what was told."""
        return [thing for thing in self.handled if thing not in self.holder or self.holder[thing] in self.places]

    def place_of(self, thing: str) -> tuple[str, tuple[int, ...]]:
        """Where it is, and the two facts that say so."""
        if holder := self.holder.get(thing):
            return self.places[holder], (self.handled[thing], self.moved[holder])
        place, moved = self.lying[thing]
        return place, (self.handled[thing], moved)

    def _can_take(self, who: str, thing: str) -> bool:
        return thing not in self.lying or self.places.get(who) == self.lying[thing][0]

    def _count(self) -> int:
        self.facts += 1
        return self.facts - 1


def fears(choices: Choices, rounds: int) -> list[Line]:
    """Task 15: each kind is afraid of another one; of some names the kind is told.

    Spec: [reasoning.fears][].
    """
    afraid = {kind: choices.one_of([other for other in HUNTED if other != kind]) for kind in HUNTED}
    kinds = {name: choices.one_of(list(HUNTED)) for name in choices.order(list(NAMES), 4)}
    told = [("fear", *pair) for pair in afraid.items()] + [("kind", *pair) for pair in kinds.items()]
    told = choices.order(told)
    lines = [choices.fact(*each) for each in told]
    for _ in range(rounds):
        who = choices.one_of(list(kinds))
        needed = (told.index(("kind", who, kinds[who])), told.index(("fear", kinds[who], afraid[kinds[who]])))
        lines.append(Line(Saying("afraid-of", (who,)), 0, (afraid[kinds[who]],), needed))
    return lines


def colours(choices: Choices, rounds: int) -> list[Line]:
    """Task 16: five names have a kind and all but the asked one a colour; one is asked for that, by others of its kind.

    Spec: [reasoning.simulated][].
    """
    asked, *others = choices.order(list(NAMES), 5)
    kinds = {name: choices.one_of(list(COLOURED)) for name in (asked, *others)}
    if choices.below(_ONE_IN):  # no third of that kind, as in most official stories
        apart = [kind for kind in COLOURED if kind != kinds[asked]]
        kinds |= {name: choices.one_of(apart) for name in others if kinds[name] == kinds[asked]}
    kinds[others[0]] = kinds[asked]
    colour = {name: choices.one_of(list(COLOURS)) for name in others}
    lines: list[Line] = []
    kind_at: dict[str, int] = {}
    latest = ("", 0, 0)
    for name in choices.order([asked, *others, *others]):
        if name not in kind_at:
            kind_at[name] = len(lines)
            lines.append(choices.fact("kind", name, kinds[name]))
        else:
            latest = (colour[name], kind_at[name], len(lines)) if kinds[name] == kinds[asked] else latest
            lines.append(choices.fact("colour", name, colour[name]))
    return [*lines, Line(Saying("what-colour", (asked,)), 0, latest[:1], (kind_at[asked], *latest[1:]))]


def paths(choices: Choices, rounds: int) -> list[Line]:
    """Task 19: six places on a grid, each told beside one before it; the way between two of them takes two steps.

    Spec: [reasoning.paths][].
    """
    first, *rest = choices.order(list(PLACES))
    where = {first: (0, 0)}
    beside: dict[str, dict[str, tuple[str, int]]] = {first: {}}
    """Of each place its neighbours that were told: in which direction, and by which fact."""
    facts = []
    for place in rest:
        ways = [
            (other, direction, spot)
            for other, (x, y) in where.items()
            for direction, (dx, dy) in _STEPS.items()
            if (spot := (x + dx, y + dy)) not in where.values()
        ]
        other, direction, where[place] = choices.one_of(ways)
        beside[place] = {}
        facts.append((other, direction, place))
    lines = []
    for number, (other, direction, place) in enumerate(choices.order(facts)):
        back = next(name for name, step in _STEPS.items() if step == tuple(-each for each in _STEPS[direction]))
        beside[other][place], beside[place][other] = (direction, number), (back, number)
        told = (place, direction, other) if choices.below(2) else (other, back, place)
        lines.append(choices.fact("beside", *told))
    pairs = [(a, b, c) for a in beside for b in beside[a] for c in beside[b] if c != a]
    start, over, end = choices.one_of(pairs)
    (one, first_fact), (two, second_fact) = beside[start][over], beside[over][end]
    return [*lines, Line(Saying("path", (start, end)), 0, (one, two), (first_fact, second_fact))]


SIMULATED: dict[int, tuple[Callable[[Choices, int], list[Line]], int]] = {
    1: (moves, 5),
    2: (carried, 5),
    15: (fears, 4),
    16: (colours, 1),
    19: (paths, 1),
}
"""By number, how a task's stories are drawn, and questions of a story."""
assert set(_STEPS) == set(DIRECTIONS)
