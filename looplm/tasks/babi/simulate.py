"""Stories like those of task 16, drawn by rule, in the format of the files: for a look without any download."""

from collections.abc import Iterator

import torch

from looplm.draws import Draw

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve")
KINDS = ("fox", "owl", "hen", "bear")
COLOURS = ("red", "blue", "brown", "black")
_ONE_IN = 8
"""Of so many stories, one may have more names of the asked one's kind."""


def simulate(count: int, seed: int) -> Iterator[str]:
    """Lines of so many stories, one question each.

    Every name has a kind, all but the asked one a colour, and at least one other name is of the asked one's kind. A colour is
    told at some place after the kind of the same name. Of several names of that kind, the colour told last is the answer.

    Spec: [reasoning.simulated][].
    """
    for number in range(count):
        generator = Draw(seed, "stories", number).generator()
        yield from _story(generator)


def _story(generator: torch.Generator) -> list[str]:
    def drawn(n: int) -> list[int]:
        return torch.randint(0, 4, (n,), generator=generator).tolist()

    def order(n: int) -> list[int]:
        return torch.randperm(n, generator=generator).tolist()

    asked, other, *_ = order(len(NAMES))
    kinds, colours = drawn(len(NAMES)), drawn(len(NAMES))
    if int(torch.randint(0, _ONE_IN, (), generator=generator)):  # no third of that kind, as in most official stories
        away = (1 + torch.randint(0, len(KINDS) - 1, (len(NAMES),), generator=generator)).tolist()
        its = kinds[asked]
        kinds = [(its + step) % len(KINDS) if kind == its else kind for kind, step in zip(kinds, away, strict=True)]
        kinds[asked] = its
    kinds[other] = kinds[asked]
    told = [name for name in range(len(NAMES)) for _ in range(1 if name == asked else 2)]
    facts: list[str] = []
    kind_at: dict[int, int] = {}
    latest = (0, 0, 0)
    """The answer's colour, and the places of its name's kind and colour."""
    for name in (told[i] for i in order(len(told))):
        if name not in kind_at:
            kind_at[name] = len(facts) + 1
            facts.append(f"{NAMES[name]} is a {KINDS[kinds[name]]}.")
        else:
            facts.append(f"{NAMES[name]} is {COLOURS[colours[name]]}.")
            latest = (colours[name], kind_at[name], len(facts)) if kinds[name] == kinds[asked] else latest
    colour, kind_told, colour_told = latest
    question = f"What color is {NAMES[asked]}?\t{COLOURS[colour]}\t{kind_at[asked]} {kind_told} {colour_told}"
    return [f"{place} {line}" for place, line in enumerate([*facts, question], 1)]
