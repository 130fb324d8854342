"""Text of a file: read as what it is, and parted into what is trained on and what is held out."""

import codecs
import unicodedata
from hashlib import sha256
from math import ceil
from pathlib import Path

from looplm.errors import InputError

BOUNDARY = "\f"
"""A form feed ends a document, as it ends a page of a text file."""
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LOOKED_AT = 2**16
"""Bytes of a file in which its encoding shows."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark, its lines ended by a line feed, in NFC.

    Raises:
        InputError: if it is missing, a folder, empty, or in another encoding; it says in which, and how to convert it.

    Spec: [korean.text][].
    """
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give a text file.") from None
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a text file.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; give a text file.") from None
    try:
        text = content.decode("utf-8-sig")
        other = "UTF-16LE" if "\0" in text[:_LOOKED_AT] and _pairs_with_nothing(content) else ""
    except UnicodeDecodeError as error:
        other, text = _encoding_of(content) or f"no UTF-8 from its byte {error.start:,} on", ""
    if other.startswith("no"):
        raise InputError(f"{path} is {other}, and no encoding that is known here; give a text file in UTF-8.")
    if other:
        raise InputError(f"{path} is in {other}, not in UTF-8; convert it: iconv -f {other} -t UTF-8 {path} > NEW_FILE")
    if not text.strip():
        raise InputError(f"{path} is empty; give a file that holds some text.")
    return normalized(text.replace("\r\n", "\n"))


def normalized(text: str) -> str:
    """The text in NFC, in which a syllable of Hangul is one character.

    Spec: [korean.text][].
    """
    return unicodedata.normalize("NFC", text)


def parted(text: str, held_out_share: float, delimiter: str = "") -> tuple[list[str], list[str]]:
    """The documents that are trained on, and those held out; a text without a form feed is cut near its end.

    Args:
        text: of a file.
        held_out_share: of its characters.
        delimiter: not part of the text: the sides are those of the text without it, and it stays where it is.

    Spec: [korean.held-out-documents][], [korean.delimiter][].
    """
    if BOUNDARY not in text:
        size = len(text) - text.count(delimiter) if delimiter else len(text)
        trained = _place(text, size - ceil(held_out_share * size), delimiter)
        return [text[:trained]], [text[trained:]]
    documents = [document for document in text.split(BOUNDARY) if document.strip()]
    plain = [document.replace(delimiter, "") for document in documents] if delimiter else documents
    wanted, size, held_out = held_out_share * sum(map(len, plain)), 0, set[bytes]()
    keys = [sha256(document.encode()).digest() for document in plain]
    for key, document in sorted(zip(keys, plain, strict=True)):
        if size >= wanted and key not in held_out:
            break
        held_out.add(key)
        size += len(document)
    sides: tuple[list[str], list[str]] = ([], [])
    for key, document in zip(keys, documents, strict=True):
        sides[key in held_out].append(document)
    return sides


def _place(text: str, count: int, delimiter: str) -> int:
    """Where so many characters of a text have passed, delimiters not counted."""
    passed = 0
    for between in text.split(delimiter) if delimiter else [text]:
        if count <= len(between):
            break
        passed, count = passed + len(between) + 1, count - len(between)
    return passed + count


def _encoding_of(content: bytes) -> str:
    """The encoding of bytes that are no UTF-8, by its name for iconv; empty if none is known."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return name
    if _pairs_with_nothing(content):
        return "UTF-16LE"
    try:
        text = content.decode("cp949")
    except UnicodeDecodeError:
        return ""
    return "CP949" if any("가" <= letter <= "힣" for letter in text) else ""


def _pairs_with_nothing(content: bytes) -> bool:
    """Whether many second bytes are 0, as in UTF-16 without a mark, where spaces, figures and line feeds have them."""
    seconds = content[1:_LOOKED_AT:2]
    return seconds.count(0) > len(seconds) / 20 > content[0:_LOOKED_AT:2].count(0)
