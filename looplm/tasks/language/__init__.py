"""Text: a file in any language, byte by byte or in pieces, each predicted from those before it.

tokenizer.py   pieces: a SentencePiece model that gives every text back
corpus.py      what a file holds, and which of its documents are held out
ngram.py       what counting alone predicts: the floor of a model
"""

import codecs
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.settings import STRICT
from looplm.shapes import Int
from looplm.task import Batch, Prompt, Suite, Vocabulary, check_count
from looplm.tasks.language.corpus import BOUNDARY, normalized, parted, read_text
from looplm.tasks.language.tokenizer import Tokenizer, characters_begun

BEGIN = 256
"""Stands before a window, and fills rows up; no byte has this id."""
_CONTINUED, _EXAMPLE_TOKENS = 8, 9
"""Tokens by which a question is continued, and those of the example: few enough for a screen to show a trace."""
_SHOWN = {ord(" "): "␣", ord("\n"): "⏎", ord("\t"): "⇥"}
_KEPT_BYTES = 2**28
"""Largest file that is kept in memory whole."""
_Tokens = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Language:
    """Rows of a text file, each token predicted from those before it; a token is a byte, or a piece of a tokenizer.

    Spec: [tasks.bytes][], [tasks.windows][], [tasks.text-held-out][], [korean.pieces][], [korean.document-rows][].
    """

    path: str = ""
    """The file; a relative path is taken from the current directory. A trained model goes on without it."""
    tokenizer: str | None = None
    """A file of `looplm tokenizer train`; a trained model keeps a copy. Without one, tokens are bytes."""
    context: int = Field(default=128, ge=2, le=2**16)
    """Tokens of a row; the longest, where rows are documents."""
    rows: Literal["windows", "documents"] = "windows"
    """Windows of the documents one after the other; or each row one document from its beginning, which needs a tokenizer and a
    text with form feeds."""
    held_out_share: float = Field(default=0.1, gt=0, lt=1)
    """Of the file, for testing only: of its bytes, at the end; of its characters where there is a tokenizer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rows == "documents" and self.tokenizer is None:
            raise ValueError("`rows = 'documents'` needs a `tokenizer`, whose end mark says where a document ends")
        return self

    @property
    def opening(self) -> list[int]:
        """The tokens after which a document begins."""
        assert self.pieces, "only a tokenizer has an end mark"
        return [self.pieces.begin, *([self.pieces.end] if self.rows == "windows" else [])]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The begin mark, and all bytes, each under its own value, or the pieces of the tokenizer.

        Raises:
            InputError: if the tokenizer cannot be used.
        """
        if pieces := self.pieces:
            stop = pieces.end if self.rows == "documents" else None
            return Vocabulary(pieces.symbols, pad=pieces.begin, stop=stop, characters=pieces.characters)
        shown = (_SHOWN.get(byte) or (chr(byte) if 32 < byte < 127 else f"{byte:02x}") for byte in range(256))
        begun = (characters_begun(bytes([byte])) for byte in range(256))
        return Vocabulary((*shown, "<bos>"), pad=BEGIN, characters=(*begun, 0))

    @cached_property
    def pieces(self) -> Tokenizer | None:
        """The tokenizer; None where tokens are bytes."""
        return None if self.tokenizer is None else Tokenizer.load(self.tokenizer)

    @property
    def carried(self) -> dict[str, Path]:
        """The tokenizer goes with a trained model.

        Spec: [tasks.carried][].
        """
        return {"tokenizer": Path(self.tokenizer)} if self.tokenizer is not None else {}

    @property
    def unit(self) -> str:
        """What tokens are."""
        return "bytes" if self.tokenizer is None else "pieces"

    @property
    def suites(self) -> Mapping[str, Suite]:
        """Windows of the held-out part, of any length."""
        return {"held-out": Suite("held-out", self.unit, scored_by="loss")}

    @property
    def trained_sizes(self) -> tuple[int, int]:
        """Tokens of a window: always as many."""
        return self.context, self.context

    @property
    def example(self) -> str:
        """The first whole words that are held out, cut to a few tokens."""
        begins = self.answer(self.parts()[1][: 10 * _EXAMPLE_TOKENS].tolist())
        words = [word for word in begins.split() if word.isprintable() and "\ufffd" not in word]
        return self.answer(self._encode(" ".join(words[1:] or words))[:_EXAMPLE_TOKENS]).strip("\ufffd ")

    def batch(self, rows: range, draw: Draw) -> Batch:
        """Windows of the training part, one a row, at places drawn evenly; or documents of it, drawn evenly.

        Raises:
            InputError: if the file cannot be read, is too short, or is to be read by documents and says not where they end.

        Spec: [tasks.windows][], [tasks.rows][], [korean.pieces][], [korean.document-rows][].
        """
        text, _ = self.parts()
        if self.rows == "documents":
            begins, _ = self._begins()
            chosen = (draw.of("where").uniform(rows, 1)[:, 0] * len(begins)).long()
            return documents(text, begins, chosen, self.context, self.vocabulary.pad)
        places = len(text) - self.context + 1
        starts = (draw.of("where").uniform(rows, 1)[:, 0] * places).long()
        return collate(windows(text, starts, self.context), self.vocabulary.pad)

    def longest(self) -> Batch:
        """A window; which one does not matter, and no file is read."""
        return collate(torch.zeros(1, self.context, dtype=torch.int64), begin=0)

    def suite(self, name: str, size: int, count: int, seed: int) -> Batch:
        """Windows of `size` tokens of the held-out part, at places drawn evenly; they may overlap. Or documents, cut to `size`.

        Raises:
            InputError: if there is no such set, the file cannot be read, or too little of it is held out.

        Spec: [tasks.held-out][], [tasks.text-held-out][], [korean.pieces][], [korean.document-rows][].
        """
        if name not in self.suites:
            raise InputError(f"there is no test set {name!r} of a text; there is: held-out.")
        _, text = self.parts()
        if not 1 <= size <= len(text):
            raise InputError(
                f"windows have 1 to {len(text):,} {self.unit}, of which `held_out_share = {self.held_out_share}` of "
                f"{self.path} consists: got {size}; hold more out, give a longer text, or set `evaluation.sizes`."
            )
        check_count(count)
        generator = Draw(seed, "test", size).generator()
        if self.rows == "documents":
            _, begins = self._begins()
            chosen = torch.randint(0, len(begins), (count,), generator=generator)
            return documents(text, begins, chosen, size, self.vocabulary.pad)
        starts = torch.randint(0, len(text) - size + 1, (count,), generator=generator)
        return collate(windows(text, starts, size), self.vocabulary.pad)

    def prompt(self, text: str) -> Prompt:
        """The tokens of any text, even of none.

        Raises:
            InputError: if it has none: half a surrogate pair.
        """
        return Prompt([self.vocabulary.pad, *self._encode(text)], max_new_tokens=_CONTINUED)

    def answer(self, ids: Sequence[int]) -> str:
        """The text of tokens, without marks: of bytes, what is no whole character becomes U+FFFD; of pieces, it vanishes."""
        return self.pieces.decode(ids) if self.pieces else as_bytes(ids).decode(errors="replace")

    def whole(self, ids: Sequence[int]) -> str:
        """The same up to the last character that no further token can change: what may be shown of a text as it comes."""
        return self.pieces.decode(ids) if self.pieces else whole_characters()(as_bytes(ids))

    def right(self, text: str) -> str | None:
        """None: many continuations are right."""
        return None

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that this task exercises."""
        shared = (*(["tasks.windows"] if self.rows == "windows" else []), "tasks.nats-per-token", "korean.bits-per-character")
        if self.tokenizer is None:
            return (*shared, "tasks.bytes", "tasks.text-held-out")
        names = ["text", "exact", "pieces", "held-out-documents", *(["document-rows"] if self.rows == "documents" else [])]
        return (*shared, *(f"korean.{name}" for name in names), "tasks.carried")

    def _encode(self, text: str) -> list[int]:
        if self.pieces:
            return self.pieces.encode(normalized(text))
        try:  # bytes of the command line that are no UTF-8 come as surrogates, and go back
            return list(text.encode(errors="surrogateescape"))
        except UnicodeEncodeError as error:
            raise InputError(f"{text[error.start : error.end]!r} is half a character; give whole ones.") from None

    @cached_property
    def _version(self) -> tuple[int, int]:
        """When the file was last changed before this task first read it, and its size: later changes are not seen."""
        try:
            found = Path(self.path).stat()
        except OSError:
            return (0, 0)  # reading says what is wrong
        return found.st_mtime_ns, found.st_size

    def parts(self) -> tuple[_Tokens, _Tokens]:
        """The tokens that are for training, and those that are held out.

        Raises:
            InputError: if the file cannot be read, or is too short.
        """
        if not self.path:
            raise InputError("the task language reads a text file: give one with --data FILE, or as `task.path`.")
        path = Path(self.path).absolute()
        if self.pieces:
            trained, held_out = _read_pieces(path, self._version, self.pieces, self.held_out_share)
        else:
            text = _read(path, self._version)
            cut = len(text) - ceil(self.held_out_share * len(text))
            trained, held_out = text[:cut], text[cut:]
        if self.rows == "windows" and len(trained) < self.context:
            raise InputError(
                f"{self.path} is too short: a window has {self.context:,} {self.unit}, and {len(trained):,} of its "
                f"{len(trained) + len(held_out):,} are for training; give a longer text, or a smaller `task.context`."
            )
        return trained, held_out

    def _begins(self) -> tuple[_Tokens, _Tokens]:
        """Where each document begins in the two parts.

        Raises:
            InputError: if the text does not say where documents end.
        """
        assert self.pieces, "the settings were checked"
        begins = _read_begins(Path(self.path).absolute(), self._version, self.pieces, self.held_out_share)
        if not all(map(len, begins)):
            raise InputError(
                f"{self.path} has no form feed that ends a document, and `task.rows` is 'documents'; put one after each "
                "document, or set `task.rows` to 'windows'."
            )
        return begins


def collate(window: Annotated[Tensor, Int("N T")], begin: int = BEGIN) -> Batch:
    """Windows as a model reads them: each token is predicted from the mark and the tokens before it.

    Spec: [tasks.windows][].
    """
    tokens = torch.cat((torch.full_like(window[:, :1], begin), window[:, :-1]), 1)
    everywhere = torch.ones_like(window, dtype=torch.bool)
    return Batch(tokens, window, everywhere, everywhere)


def windows(text: _Tokens, starts: Annotated[Tensor, Int("N")], size: int) -> Annotated[Tensor, Int("N T")]:
    """So many tokens from each place of a text.

    Spec: [tasks.bytes][].
    """
    taken = text[(starts[:, None] + torch.arange(size)).numpy()]
    return torch.from_numpy(np.asarray(taken, dtype=np.int64))


def documents(text: _Tokens, begins: _Tokens, chosen: Annotated[Tensor, Int("N")], size: int, begin: int) -> Batch:
    """Some documents of a text, cut to `size` tokens, as a model reads them: begin marks fill shorter rows up.

    Args:
        text: the documents one after the other, each with its end mark.
        begins: where each begins.
        chosen: which of them are wanted.
        size: most tokens of a row.
        begin: id of the begin mark.

    Spec: [korean.document-rows][].
    """
    lengths = np.diff(begins, append=len(text))[chosen.numpy()].clip(max=size)
    columns = np.arange(lengths.max())
    real = torch.from_numpy(columns < lengths[:, None])
    places = (begins[chosen.numpy()][:, None] + columns).clip(max=len(text) - 1)
    targets = torch.from_numpy(np.asarray(text[places], dtype=np.int64)).masked_fill(~real, begin)
    tokens = collate(targets, begin).tokens.masked_fill(~real, begin)
    return Batch(tokens, targets, real, real)


def as_bytes(ids: Sequence[int]) -> bytes:
    """The bytes among some tokens.

    Spec: [tasks.bytes][].
    """
    return bytes(id for id in ids if id < BEGIN)


def whole_characters() -> Callable[[bytes], str]:
    """Gives of bytes, as they come, the text up to the last whole character; what is no UTF-8 at all becomes U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode


@lru_cache(maxsize=8)
def _read_pieces(path: Path, version: tuple[int, int], pieces: Tokenizer, held_out_share: float) -> tuple[_Tokens, _Tokens]:
    """The pieces of a file's two parts, each document followed by the end mark if the file says where documents end.

    Raises:
        InputError: if it cannot be read, or is no text.

    Spec: [korean.pieces][].
    """
    text = read_text(path)
    ends = [pieces.end] if BOUNDARY in text else []
    trained, held_out = (
        np.fromiter((id for document in part for id in (*pieces.encode(document), *ends)), dtype=np.int32)
        for part in parted(text, held_out_share)
    )
    return trained, held_out


@lru_cache(maxsize=8)
def _read_begins(path: Path, version: tuple[int, int], pieces: Tokenizer, held_out_share: float) -> tuple[_Tokens, _Tokens]:
    """Where each document begins in a file's two parts; nothing where no document ends."""
    trained, held_out = (np.flatnonzero(part == pieces.end) for part in _read_pieces(path, version, pieces, held_out_share))
    return np.append(0, trained + 1)[:-1], np.append(0, held_out + 1)[:-1]


@lru_cache(maxsize=8)
def _read(path: Path, version: tuple[int, int]) -> _Tokens:
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
