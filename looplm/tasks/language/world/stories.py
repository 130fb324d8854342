"""Stories that keep who has what: written at random, and checked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from looplm.draws import Draw
from looplm.tasks.language.world import lexicon
from looplm.tasks.language.world.grammar import LEVELS, MOVES, NOBODY, PATTERNS, Pattern, Sentence, read, words_of, write

_DRAWN = 512
"""Random numbers of a story; one takes about 200."""
_LEAST, _MOST = 6, 10
"""Sentences after the opening."""
_MOST_GAINS = 3
"""Things of a story."""
_DIALOGUES = 0.3
"""Share of documents in which people only talk, once each has something."""
_FOLLOWS = {"ask": ("give",), "wonder": ("answer", "point"), "give": ("thank", "kept"), "find": ("report", "show", "use")}
"""What often comes after a sentence, about the same thing."""
_FOLLOWED = 0.6
"""How often it does."""
_BY_KIND: dict[str, list[Pattern]] = {kind: [p for p in PATTERNS if p.kind == kind] for kind in MOVES}
_SPOKEN = tuple(kind for kind, patterns in _BY_KIND.items() if patterns[0].level)
_GAINS = ("own", "find")
_OPENINGS = ("open", "meet")
_Item = TypeVar("_Item")


class Contradiction(ValueError):
    """A sentence says that someone has what they do not have, or finds what someone has."""


def after(holders: Mapping[str, str], sentence: Sentence) -> dict[str, str]:
    """Who has each thing after a sentence.

    Raises:
        Contradiction: if the sentence needs another holder than there is.

    Spec: [world.who-has-what][].
    """
    roles = {NOBODY: NOBODY} | sentence.roles
    moves = MOVES[sentence.kind]
    for thing, before, _ in moves:
        if holders.get(roles[thing], NOBODY) != roles[before]:
            raise Contradiction(f"{roles[thing]}: {holders.get(roles[thing], NOBODY) or 'nobody'} has it, not {roles[before]}")
    return dict(holders) | {roles[thing]: roles[new] for thing, _, new in moves}


def keeps(lines: Sequence[str]) -> bool:
    """Whether every line is a sentence, and none says that someone has what they do not have.

    Spec: [world.who-has-what][].
    """
    holders: dict[str, str] = {}
    for line in lines:
        sentence = read(line)
        if sentence is None:
            return False
        try:
            holders = after(holders, sentence)
        except Contradiction:
            return False
    return True


def story(number: int, seed: int = 0, delimiter: str = "") -> list[str]:
    """The sentences of a story or dialogue; the same for the same number and seed, whatever the delimiter.

    Spec: [world.who-has-what][], [world.delimiter][], [training.keyed-randomness][].
    """
    numbers = Draw(seed, "world").uniform(range(number, number + 1), _DRAWN)[0].tolist()
    return _Writer(_Choices(numbers), delimiter).story()


class _Choices:
    """Random choices from a row of numbers in [0, 1)."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self._numbers: Iterator[float] = iter(numbers)

    def happens(self, share: float) -> bool:
        return next(self._numbers) < share

    def one(self, items: Sequence[_Item]) -> _Item:
        return items[int(next(self._numbers) * len(items))]

    def some(self, items: Sequence[str], count: int) -> list[str]:
        """Different ones."""
        taken: list[str] = []
        while len(taken) < count:
            item = self.one(items)
            if item not in taken:
                taken.append(item)
        return taken


class _Writer:
    """A story as it grows: who is in it, what has been found, and who has it."""

    def __init__(self, choices: _Choices, delimiter: str) -> None:
        self._choices, self._delimiter = choices, delimiter
        groups = [choices.one((lexicon.FRIENDS, lexicon.FRIENDS, lexicon.ELDERS, lexicon.TITLES)) for _ in range(3)]
        self._cast: list[str] = []
        for group in groups[: 2 + choices.happens(0.5)]:
            self._cast += choices.some([person for person in group if person not in self._cast], 1)
        self._things = choices.some(lexicon.THINGS, _MOST_GAINS)
        self._holders: dict[str, str] = {}
        self._lines: list[str] = []

    def story(self) -> list[str]:
        """All of it."""
        talk = self._choices.happens(_DIALOGUES)
        self._tell("meet" if talk else "open", dict(zip("ab", self._cast, strict=False)))
        last, length = "", self._choices.one(range(_LEAST, _MOST + 1))
        for step in range(length):
            last = self._next(last, talk and step >= 2, first=step == 0 or (talk and step == 1))
        return self._lines

    def _next(self, last: str, talk: bool, first: bool) -> str:
        """Add a sentence that may stand here, and give its kind."""
        follows = _FOLLOWS.get(last, ())
        if follows and self._choices.happens(_FOLLOWED):
            kind = self._choices.one(follows)
        else:
            kind = self._choices.one(_GAINS if first else (*_SPOKEN, "give") if talk else _TELLING)
        roles = self._roles(kind)
        if roles is None:
            kind = "go" if len(self._things) == len(self._holders) else "find"
            roles = self._roles(kind)
            assert roles is not None, "people can always go somewhere"
        self._tell(kind, roles)
        return kind

    def _roles(self, kind: str) -> dict[str, str] | None:
        """People and things for a sentence of this kind that contradicts nothing; None if there are none."""
        people = self._choices.some(self._cast, len(self._cast))
        asked = {role: None for pattern in _BY_KIND[kind][:1] for role in _roles_of(pattern)}
        if kind == "point" and len(people) < 3:
            return None
        if kind in _GAINS:
            free = [thing for thing in self._things if not self._holders.get(thing)]
            return {"a": people[0], "t": self._choices.one(free)} if free else None
        roles = dict(zip("abc", people, strict=False))
        for thing, before, _ in MOVES[kind]:
            held = [t for t, holder in self._holders.items() if holder and t not in roles.values()]
            fitting = held if thing == "t" else [t for t in held if self._holders[t] == roles[before]]
            if not fitting:
                return None
            roles[thing] = self._choices.one(fitting)
            if thing == "t":
                roles = _seated(roles, before, self._holders[roles[thing]])
        if "t" in asked and "t" not in roles:
            if not self._holders:
                return None
            roles["t"] = self._choices.one(list(self._holders))
        return {role: word for role, word in roles.items() if role in asked}

    def _tell(self, kind: str, roles: dict[str, str]) -> None:
        """Add the sentence, its other words drawn, and keep who has what after it."""
        level = LEVELS[roles["b"]] if _BY_KIND[kind][0].level else None
        pattern = next(pattern for pattern in _BY_KIND[kind] if pattern.level == level)
        drawn = {role: self._choices.one(words_of(role)) for role in _roles_of(pattern) if role not in roles}
        self._lines.append(write(pattern, drawn | roles, self._delimiter))
        self._holders = after(self._holders, Sentence(kind, roles, pattern))


_TELLING = tuple(kind for kind in MOVES if kind not in (*_OPENINGS, "own"))


def _roles_of(pattern: Pattern) -> list[str]:
    return list(dict.fromkeys(word.role for word in pattern.words if not isinstance(word, str)))


def _seated(roles: dict[str, str], role: str, person: str) -> dict[str, str]:
    """The same people, with this one in the role, and the one who was there in the other's."""
    other = next(name for name, who in roles.items() if who == person)
    return roles | {role: person, other: roles[role]}
