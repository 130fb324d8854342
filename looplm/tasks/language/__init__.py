"""Text: a file in any language, byte by byte, each predicted from those before it."""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from math import ceil
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.settings import STRICT
from looplm.shapes import Int
from looplm.task import Batch, Prompt, Suite, Vocabulary, check_count

BEGIN = 256
"""Stands before a window, and fills rows up; no byte has this id."""
_CONTINUED, _EXAMPLE_BYTES = 8, 9
"""Bytes by which a question is continued, and those of the example: few enough for a screen to show a trace."""
_SHOWN = {ord(" "): "␣", ord("\n"): "⏎", ord("\t"): "⇥"}
_KEPT_BYTES = 2**28
"""Largest file that is kept in memory whole."""
_Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Language:
    """Windows of a text file, each byte predicted from those before it.

    Spec: [tasks.bytes][], [tasks.windows][], [tasks.text-held-out][].
    """

    path: str = ""
    """The file; a relative path is taken from the current directory. A trained model goes on without it."""
    context: int = Field(default=128, ge=2, le=2**16)
    """Tokens of a row."""
    held_out_share: float = Field(default=0.1, gt=0, lt=1)
    """Of the file's bytes, at its end: for testing only."""

    @property
    def vocabulary(self) -> Vocabulary:
        """All bytes, each under its own value, and the begin mark; bytes that are no visible sign are shown in hexadecimal."""
        shown = (_SHOWN.get(byte) or (chr(byte) if 32 < byte < 127 else f"{byte:02x}") for byte in range(256))
        return Vocabulary((*shown, "<bos>"), pad=BEGIN)

    @property
    def suites(self) -> Mapping[str, Suite]:
        """Windows of the held-out part, of any length."""
        return {"held-out": Suite("held-out", "bytes", scored_by="loss")}

    @property
    def trained_sizes(self) -> tuple[int, int]:
        """Bytes of a window: always as many."""
        return self.context, self.context

    @property
    def example(self) -> str:
        """The first whole words that are held out, cut to a few bytes."""
        begins = self._parts()[1][: 10 * _EXAMPLE_BYTES].tobytes().decode(errors="ignore")
        words = [word for word in begins.split() if word.isprintable()]
        return " ".join(words[1:] or words).encode()[:_EXAMPLE_BYTES].decode(errors="ignore").strip()

    def batch(self, rows: range, draw: Draw) -> Batch:
        """Windows of the training part, one a row, at places drawn evenly.

        Raises:
            InputError: if the file cannot be read, or is too short.

        Spec: [tasks.windows][], [tasks.rows][].
        """
        text, _ = self._parts()
        places = len(text) - self.context + 1
        return collate(windows(text, (draw.of("where").uniform(rows, 1)[:, 0] * places).long(), self.context))

    def longest(self) -> Batch:
        """A window; which one does not matter, and no file is read."""
        return collate(torch.zeros(1, self.context, dtype=torch.int64))

    def suite(self, name: str, size: int, count: int, seed: int) -> Batch:
        """Windows of `size` bytes of the held-out part, at places drawn evenly; they may overlap.

        Raises:
            InputError: if there is no such set, the file cannot be read, or too little of it is held out.

        Spec: [tasks.held-out][], [tasks.text-held-out][].
        """
        if name not in self.suites:
            raise InputError(f"there is no test set {name!r} of a text; there is: held-out.")
        _, text = self._parts()
        if not 1 <= size <= len(text):
            raise InputError(
                f"windows have 1 to {len(text):,} bytes, of which `held_out_share = {self.held_out_share}` of {self.path} "
                f"consists: got {size}; hold more out, give a longer text, or set `evaluation.sizes`."
            )
        check_count(count)
        generator = Draw(seed, "test", size).generator()
        return collate(windows(text, torch.randint(0, len(text) - size + 1, (count,), generator=generator), size))

    def prompt(self, text: str) -> Prompt:
        """The bytes of any text, even of none.

        Raises:
            InputError: if it has no bytes: half a surrogate pair.
        """
        try:  # bytes of the command line that are no UTF-8 come as surrogates, and go back
            return Prompt([BEGIN, *text.encode(errors="surrogateescape")], max_new_tokens=_CONTINUED)
        except UnicodeEncodeError as error:
            raise InputError(f"{text[error.start : error.end]!r} is half a character; give whole ones.") from None

    def answer(self, ids: Sequence[int]) -> str:
        """The bytes as UTF-8; what is no whole character becomes U+FFFD, and marks vanish."""
        return as_bytes(ids).decode(errors="replace")

    def right(self, text: str) -> str | None:
        """None: many continuations are right."""
        return None

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that this task exercises."""
        return tuple(f"tasks.{name}" for name in ("bytes", "windows", "text-held-out", "nats-per-token"))

    @cached_property
    def _version(self) -> tuple[int, int]:
        """When the file was last changed before this task first read it, and its size: later changes are not seen."""
        try:
            found = Path(self.path).stat()
        except OSError:
            return (0, 0)  # reading says what is wrong
        return found.st_mtime_ns, found.st_size

    def _parts(self) -> tuple[_Bytes, _Bytes]:
        """What is for training, and what is held out."""
        if not self.path:
            raise InputError("the task language reads a text file: give one with --data FILE, or as `task.path`.")
        text = _read(Path(self.path).absolute(), self._version)
        trained = len(text) - ceil(self.held_out_share * len(text))
        if trained < self.context:
            raise InputError(
                f"{self.path} is too short: a window has {self.context:,} bytes, and {trained:,} of its {len(text):,} are for "
                "training; give a longer text, or a smaller `task.context`."
            )
        return text[:trained], text[trained:]


def collate(window: Annotated[Tensor, Int("N T")]) -> Batch:
    """Windows as a model reads them: each byte is predicted from the mark and the bytes before it.

    Spec: [tasks.windows][].
    """
    tokens = torch.cat((torch.full_like(window[:, :1], BEGIN), window[:, :-1]), 1)
    everywhere = torch.ones_like(window, dtype=torch.bool)
    return Batch(tokens, window, everywhere, everywhere)


def windows(text: _Bytes, starts: Annotated[Tensor, Int("N")], size: int) -> Annotated[Tensor, Int("N T")]:
    """So many bytes from each place of a text.

    Spec: [tasks.bytes][].
    """
    taken = text[(starts[:, None] + torch.arange(size)).numpy()]
    return torch.from_numpy(np.asarray(taken, dtype=np.int64))


def as_bytes(ids: Sequence[int]) -> bytes:
    """The bytes among some tokens.

    Spec: [tasks.bytes][].
    """
    return bytes(id for id in ids if id < BEGIN)


@lru_cache(maxsize=8)
def _read(path: Path, version: tuple[int, int]) -> _Bytes:
    """The bytes of a file, read once; a file too large to keep is mapped into memory, and must stay as it is.

    Raises:
        InputError: if it cannot be read, or is empty.
    """
    try:
        if version[1] > _KEPT_BYTES:
            return np.memmap(path, dtype=np.uint8, mode="r")
        text = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give a text file.") from None
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a text file with --data FILE.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; give a text file.") from None
    if len(text) == 0:
        raise InputError(f"{path} is empty; give a file that holds some text.")
    return text


CHOICE = Language
