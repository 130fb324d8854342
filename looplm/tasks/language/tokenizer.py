"""Pieces of text: a SentencePiece model that gives every text back.

A model is a file. It is trained on texts (`train_tokenizer`), splits any text into pieces, and spells what it does not know
in bytes, so nothing is ever lost.
"""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from looplm.errors import InputError

ESCAPE = "\x1b"
"""Begins an escape: `ESCAPE _` stands for U+2581, and `ESCAPE e` for the character itself."""
SPACE = "\u2581"
"""What SentencePiece writes for a space, and therefore cannot tell from one."""
_ESCAPED = {SPACE: f"{ESCAPE}_", ESCAPE: f"{ESCAPE}e"}
_MEANT = {"_": SPACE, "e": ESCAPE}
_ESCAPES = re.compile(f"{ESCAPE}([^{ESCAPE}]?)")
_LEAST, _MOST = 261, 256_000
"""Pieces of a vocabulary: marks, all bytes and one more, up to what a table of a small model could hold."""
_LINE = 4096
"""Characters of a training sentence; the library skips longer ones."""
_COVERED = 0.9995
"""Share of the training text whose characters become pieces; the rarest are spelled in bytes."""
_PROBE = f"  가  나\n\t각\u1100\u1161 e\u0301①Ａ\U0001f600\0{SPACE}{ESCAPE}_ 12\r\n</s><0x41> "
_NO_DELIMITER = f"{SPACE}{ESCAPE}\0\u2585"
_RARE = 5
"""A piece that stands in the text fewer times than this is rare."""


def escape(text: str) -> str:
    """The text without U+2581, which an escape stands for.

    Spec: [korean.escape][].
    """
    return re.sub(f"[{SPACE}{ESCAPE}]", lambda found: _ESCAPED[found[0]], text)


def unescape(text: str) -> str:
    """What was escaped; an escape that means nothing, which only a model writes, vanishes.

    Spec: [korean.escape][].
    """
    return _ESCAPES.sub(lambda found: _MEANT.get(found[1], found[1]), text)


@dataclass(frozen=True)
class Tokenizer:
    """A SentencePiece model; equal if their files are.

    Spec: [korean.exact][], [korean.special-ids][].
    """

    model: bytes
    """The content of its file."""

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer of a file.

        Raises:
            InputError: if it cannot be read, is no SentencePiece model, or does not give every text back.
        """
        path = Path(path)
        try:
            found = path.stat()
        except OSError:
            raise InputError(f"{path} does not exist; {_TRAIN_ONE}") from None
        if path.is_dir():
            raise InputError(f"{path} is a folder; {_TRAIN_ONE}")
        return _load(path.absolute(), (found.st_mtime_ns, found.st_size))

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.model).hexdigest()

    @cached_property
    def _processor(self) -> Any:
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_proto=self.model)

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    @property
    def begin(self) -> int:
        """Id of the mark before a text."""
        return int(self._processor.bos_id())

    @property
    def end(self) -> int:
        """Id of the mark after a document."""
        return int(self._processor.eos_id())

    def encode(self, text: str) -> list[int]:
        """The pieces of a text, which `decode` gives back exactly.

        Raises:
            InputError: if the text holds half a surrogate pair, which is no character.

        Spec: [korean.exact][].
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{text[error.start : error.end]!r} is half a character; give whole ones.") from None
        ids: list[int] = self._processor.encode(escape(text))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of pieces; marks have none, and bytes that make no character vanish.

        The text of the first of them stands at its beginning, so it may be shown as it comes.

        Spec: [korean.exact][], [korean.whole-characters][].
        """
        return unescape(b"".join(self.contents[id] for id in ids).decode(errors="ignore"))

    @cached_property
    def contents(self) -> tuple[bytes, ...]:
        """The bytes that each id stands for, escapes not yet undone; none for marks."""
        return tuple(map(self._content, range(len(self))))

    def _content(self, id: int) -> bytes:
        """The bytes of one id: a byte piece has one, which may be a part of a character.

        Spec: [korean.whole-characters][].
        """
        processor = self._processor
        if processor.is_byte(id):
            return bytes([int(processor.id_to_piece(id)[3:-1], 16)])
        if processor.is_control(id) or processor.is_unknown(id):
            return b""
        return str(processor.id_to_piece(id)).replace(SPACE, " ").encode()

    @cached_property
    def characters(self) -> tuple[int, ...]:
        """Characters that begin in each piece; the end mark is the form feed that it stands for.

        Spec: [korean.bits-per-character][].
        """
        counts = [characters_begun(content) - content.count(ESCAPE.encode()) for content in self.contents]
        counts[self.end] = 1
        return tuple(counts)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Each id as people read it: signs that are not visible in hexadecimal."""
        return tuple(self._symbol(id, content) for id, content in enumerate(self.contents))

    def _symbol(self, id: int, content: bytes) -> str:
        if not content:
            return {self.begin: "<bos>", self.end: "<eos>"}.get(id, str(self._processor.id_to_piece(id)))
        if self._processor.is_byte(id):
            return f"{content[0]:02x}"
        shown = content.decode().replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
        return shown if shown.isprintable() else content.hex()


_TRAIN_ONE = "give a tokenizer that `looplm tokenizer train FILES --vocab N --out FILE.model` made."


@lru_cache(maxsize=8)
def _load(path: Path, version: tuple[int, int]) -> Tokenizer:
    try:
        made = Tokenizer(path.read_bytes())
        size = len(made)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; {_TRAIN_ONE}") from None
    except RuntimeError:
        raise InputError(f"{path} is no SentencePiece model; {_TRAIN_ONE}") from None
    if size == 0 or min(made.begin, made.end) < 0 or made.decode(made.encode(_PROBE)) != _PROBE:
        raise InputError(f"{path} does not give every text back, or lacks a begin or end mark; {_TRAIN_ONE}")
    return made


def train_tokenizer(texts: Sequence[str], vocabulary: int, delimiter: str = "") -> Tokenizer:
    """A tokenizer of so many pieces: byte-pair encoding, figures one by one, a line feed alone, all bytes.

    The same texts give the same bytes.

    Args:
        texts: to learn from.
        vocabulary: pieces.
        delimiter: a character that is no part of the texts: no piece is learned across it, as between morphemes.

    Raises:
        InputError: if there is no text, no delimiter in it, or the vocabulary is smaller or larger than the texts allow;
            it says what they do.

    Source: Kudo and Richardson 2018, SentencePiece, arXiv:1808.06226; Sennrich et al. 2016, arXiv:1508.07909; Park et al. 2020,
    section 3, arXiv:2010.02534, for pieces within morphemes.
    Spec: [korean.exact][], [korean.deterministic][], [korean.vocabulary-bounds][], [korean.delimiter][].
    """
    from sentencepiece import SentencePieceTrainer

    if not _LEAST <= vocabulary <= _MOST:
        raise InputError(f"`--vocab` must be from {_LEAST} to {_MOST:,}: got {vocabulary}.")
    if delimiter and (len(delimiter) > 1 or delimiter.isspace() or delimiter in _NO_DELIMITER):
        raise InputError(f"`--delimiter` must be one visible character that the text itself does not need: got {delimiter!r}.")
    if delimiter and not any(delimiter in text for text in texts):
        raise InputError(f"no text holds the delimiter {delimiter!r}; give texts in which it stands where no piece may cross.")
    lines, file = [line for text in texts for line in _sentences(text)], io.BytesIO()
    if not lines:
        raise InputError("the texts hold nothing to learn pieces from; give some text.")
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=file,
            vocab_size=vocabulary,
            model_type="bpe",
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            byte_fallback=True,
            split_digits=True,
            user_defined_symbols=["\n"],
            character_coverage=_COVERED,
            max_sentence_length=8 * _LINE,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            pretokenization_delimiter=delimiter,
            num_threads=1,  # the file notes how many there were
            minloglevel=3,
        )
    except RuntimeError as error:
        raise InputError(_bounds(str(error), vocabulary)) from None
    return Tokenizer(file.getvalue())


def _bounds(message: str, vocabulary: int) -> str:
    """What the library says of a vocabulary that it cannot make, in words of ours."""
    if found := re.search(r"set it to a value <= (\d+)", message):
        most = f"set `--vocab` to at most {found[1]}, or give more text"
        return f"a vocabulary of {vocabulary:,} is too large for these texts: {most}."
    if found := re.search(r"\d+ vs (\d+)", message):
        return f"a vocabulary of {vocabulary:,} lacks room for all characters: set `--vocab` to {found[1]} or more."
    return f"SentencePiece cannot learn from these texts: {message.strip()}"


def _sentences(text: str) -> Iterator[str]:
    """Lines without what a training sentence must not hold; the characters that are left out are spelled in bytes."""
    for line in re.split(r"[\n\f]", text):
        line = re.sub("[\0\u2585\t]", " ", escape(line))
        for start in range(0, len(line), _LINE):
            if line[start : start + _LINE].strip():
                yield line[start : start + _LINE]


def characters_begun(content: bytes) -> int:
    """Characters whose first byte stands in UTF-8 that may be cut anywhere.

    Spec: [korean.bits-per-character][].
    """
    return sum(byte & 0xC0 != 0x80 for byte in content)


@dataclass(frozen=True)
class TokenizerReport:
    """How a tokenizer splits some texts."""

    vocabulary: int
    characters: int
    bytes: int
    tokens: int
    words: int
    byte_tokens: int
    """Of the tokens, those that spell a character in bytes."""
    rare_pieces: int
    """Pieces that are no bytes or marks and stand in the texts fewer than five times."""

    def as_json(self) -> dict[str, float]:
        """The counts, and what they say a token."""
        return {
            "vocabulary": self.vocabulary,
            "characters": self.characters,
            "bytes": self.bytes,
            "tokens": self.tokens,
            "words": self.words,
            "characters_per_token": round(self.characters / self.tokens, 4),
            "bytes_per_token": round(self.bytes / self.tokens, 4),
            "tokens_per_word": round(self.tokens / max(1, self.words), 4),
            "byte_token_share": round(self.byte_tokens / self.tokens, 6),
            "rare_pieces": self.rare_pieces,
        }


def report_on(tokenizer: Tokenizer, texts: Sequence[str]) -> TokenizerReport:
    """Count what a tokenizer makes of texts; a word is what stands between white space, in Korean an eojeol."""
    counts = Counter(id for text in texts for id in tokenizer.encode(text))
    processor = tokenizer._processor
    spelled = sum(count for id, count in counts.items() if processor.is_byte(id))
    pieces = [id for id, content in enumerate(tokenizer.contents) if content and not processor.is_byte(id)]
    return TokenizerReport(
        vocabulary=len(tokenizer),
        characters=sum(map(len, texts)),
        bytes=sum(len(text.encode()) for text in texts),
        tokens=counts.total(),
        words=sum(len(text.split()) for text in texts),
        byte_tokens=spelled,
        rare_pieces=sum(counts[id] < _RARE for id in pieces),
    )
