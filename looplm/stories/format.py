"""Stories in the format of bAbI: read from a folder or an archive, checked line by line, split by story."""

import hashlib
import re
import tarfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from looplm.errors import InputError

TASKS = range(1, 21)
"""Numbers of the tasks."""
PARTS = 10
"""Of the stories of a file: one is for testing, one for validation, the others for training."""
_WORD = re.compile(r"[a-z0-9'가-힣]+")
_FORMAT = "lines `NUMBER SENTENCE` or `NUMBER QUESTION<tab>ANSWER<tab>NUMBERS OF FACTS`, numbered from 1 in each story"


@dataclass(frozen=True)
class Question:
    """A question, and the facts of its story that stand before it."""

    facts: tuple[tuple[str, ...], ...]
    """Words of each, in the order of the file."""
    words: tuple[str, ...]
    answer: str
    supporting: tuple[int, ...]
    """Indices of the facts that the file says are needed."""
    line: int
    """Where it stands in the file, from 1."""


@dataclass(frozen=True)
class Story:
    """One story and its questions."""

    text: str
    questions: tuple[Question, ...]

    @property
    def part(self) -> str:
        """Which part of the split it belongs to."""
        return part_of(self.text)


def part_of(text: str) -> str:
    """Whether a story is for `test`, `validation` or `training`: by its text alone, so that equal stories stay together.

    Spec: [reasoning.split][].
    """
    number = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % PARTS
    return {0: "test", 1: "validation"}.get(number, "training")


def words_of(sentence: str) -> tuple[str, ...]:
    """Words in small letters, without marks: Latin letters and numerals, and whole syllables of Hangul.

    Spec: [reasoning.words][].
    """
    return tuple(_WORD.findall(unicodedata.normalize("NFC", sentence).lower()))


def parse(text: str, where: str) -> list[Story]:
    """The stories of a file.

    Args:
        text: of the file.
        where: names it in errors.

    Raises:
        InputError: if a line is not of the format, or a story has no question; with the line.

    Spec: [reasoning.format][], [reasoning.words][], [reasoning.supporting][], [reasoning.refused][].
    """
    lines: list[list[tuple[int, str, str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            count, _, rest = line.strip().partition(" ")
            if not count.isdecimal() or not rest.strip():
                raise _wrong(where, number, f"{line[:60]!r} is no line of a story", _FORMAT)
            if count == "1":
                lines.append([])
            wanted = len(lines[-1]) + 1 if lines else 1
            if int(count) != wanted:
                raise _wrong(where, number, f"the line has the number {count}, where {wanted} follows", _FORMAT)
            lines[-1].append((number, rest, line))
    if not lines:
        raise InputError(f"{where} holds no story; {_FORMAT}.")
    return [_story(story, where) for story in lines]


def _story(lines: Sequence[tuple[int, str, str]], where: str) -> Story:
    facts: list[tuple[str, ...]] = []
    at: dict[int, int] = {}
    """Index of the fact of each line of the story."""
    questions = []
    for count, (number, rest, _) in enumerate(lines, 1):
        if "\t" not in rest:
            at[count] = len(facts)
            facts.append(words_of(rest))
            continue
        fields = [field.strip() for field in rest.split("\t")]
        if len(fields) not in (2, 3) or not fields[1]:
            raise _wrong(where, number, f"a question has {len(fields)} parts", "a question, its answer and the facts it needs")
        needed = fields[2].split() if len(fields) == 3 else []
        if wrong := [each for each in needed if not each.isdecimal() or int(each) not in at]:
            known = f"one of the {len(at)} facts before the question"
            raise _wrong(where, number, f"the supporting fact {wrong[0]} is none", f"the number of {known}")
        if not facts:
            raise _wrong(where, number, "a question stands before every fact", "at least one fact")
        supporting = tuple(at[int(each)] for each in needed)
        questions.append(Question(tuple(facts), words_of(fields[0]), fields[1].lower(), supporting, number))
    if not questions:
        raise _wrong(where, lines[-1][0], "the story that ends here has no question", "at least one line with a tab")
    return Story("\n".join(line for _, _, line in lines), tuple(questions))


def _wrong(where: str, line: int, what: str, wanted: str) -> InputError:
    return InputError(f"{where}, line {line}: {what}; expected: {wanted}.")


@lru_cache(maxsize=4)
def read(path: Path, number: int, edition: str, version: tuple[int, int]) -> tuple[Story, ...]:
    """The stories of a task, from its file, or from a folder or tar archive that holds it.

    Args:
        path: of the file, folder or archive.
        number: of the task.
        edition: the folder in which the file stands, where there are several.
        version: of the path, so that another content is read anew.

    Raises:
        InputError: if there is no such file, or more than one, or it is not of the format.
    """
    where, text = _contents(path, number, edition)
    return tuple(parse(text, where))


def _contents(path: Path, number: int, edition: str) -> tuple[str, str]:
    name = f"qa{number}_*_train.txt"
    try:
        if path.is_dir():
            files = {str(file): file for file in sorted(path.rglob(name))}
            chosen = _choose(list(files), path, number, edition)
            return chosen, files[chosen].read_text(encoding="utf-8")
        if path.suffix == ".txt":
            return str(path), path.read_text(encoding="utf-8")
        with tarfile.open(path) as archive:
            chosen = _choose([m.name for m in archive if Path(m.name).match(name)], path, number, edition)
            file = archive.extractfile(chosen)
            assert file is not None
            return f"{path}: {chosen}", file.read().decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the folder or archive of bAbI with --data.") from None
    except tarfile.TarError:
        raise InputError(f"{path} is no folder, no .txt file and no tar archive; give those of bAbI.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: the file of task {number} is not UTF-8 text.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None


def _choose(found: Sequence[str], path: Path, number: int, edition: str) -> str:
    """The one file of the task, or that of the edition."""
    chosen = [name for name in found if Path(name).parent.name == edition] if len(found) > 1 else list(found)
    if len(chosen) != 1:
        others = ", ".join(sorted({Path(name).parent.name for name in found}))
        there = f"in the folders {others}: set `task.edition` to one of them" if found else "no file of that name"
        raise InputError(f"{path} must hold one qa{number}_*_train.txt of the edition {edition!r}, and there is {there}.")
    return chosen[0]


def questions_of(stories: Sequence[Story], part: str) -> Iterator[Question]:
    """The questions of a part of the split."""
    for story in stories:
        if story.part == part:
            yield from story.questions


def latest_of_its_kind(question: Question) -> str:
    """The rule "what holds of the latest animal of that species", for task 16: a baseline that reasons little.

    Facts are of the forms "NAME is a KIND" and "NAME is COLOUR". Of all names of the asked name's kind, the one whose
    colour was told last decides; where nothing is known, the answer is empty.

    Spec: [reasoning.latest-animal][].
    """
    kind_of, asked = {fact[0]: fact[3] for fact in question.facts if fact[1:3] == ("is", "a")}, question.words[-1]
    for fact in reversed(question.facts):
        if len(fact) == 3 and asked in kind_of and kind_of.get(fact[0]) == kind_of[asked]:
            return fact[2]
    return ""
