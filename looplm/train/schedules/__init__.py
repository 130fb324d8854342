"""Schedules of the learning rate, a file each."""

from typing import Protocol

from looplm.choices import Choices


class Schedule(Protocol):
    """The learning rate of each step."""

    def __call__(self, step: int, steps: int) -> float:
        """The rate of a step, from 0, of so many."""
        ...

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that it follows."""
        ...


SCHEDULES: Choices[Schedule] = Choices("looplm.train.schedules", "schedule")
"""The files of this folder."""
