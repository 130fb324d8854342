"""Lines of a file or of standard input, as they come: in constant memory, and without waiting for the end of a stream."""

import os
import sys
from codecs import getincrementaldecoder
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from queue import Queue
from threading import Thread

_CHUNK = 1 << 16


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file; a byte order mark is no part of the first, and what is not UTF-8 becomes U+FFFD."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        yield from file


def standard_input() -> Iterator[str]:
    """Its lines, each as soon as it is complete; read as `lines_of` reads a file, whatever the terminal's encoding."""
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):  # no file stands behind it
        return iter(sys.stdin)
    return _read(descriptor)


def waiting(lines: Iterator[tuple[int, str]], at_most: int) -> Iterator[list[tuple[int, str]]]:
    """The lines in batches: what is there by now, at least one, at most so many; no more than two batches are held.

    A thread reads ahead, so that whoever writes line by line gets an answer line by line, and a long file full batches.
    """
    ready: Queue[tuple[int, str] | BaseException | None] = Queue(maxsize=at_most)

    def read_ahead() -> None:
        try:
            for line in lines:
                ready.put(line)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    Thread(target=read_ahead, daemon=True).start()
    while True:
        batch, item = [], ready.get()
        while isinstance(item, tuple):
            batch.append(item)
            if len(batch) == at_most or ready.empty():
                break
            item = ready.get()
        if batch:
            yield batch
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item


def _read(descriptor: int) -> Iterator[str]:
    # not through sys.stdin, whose lock a daemon thread would still hold when Python leaves
    decoder = getincrementaldecoder("utf-8-sig")(errors="replace")
    begun: list[str] = []  # of a line whose end has not come; a long one is joined once
    for chunk in chain(iter(lambda: os.read(descriptor, _CHUNK), b""), (b"",)):
        end, *lines = decoder.decode(chunk, final=not chunk).split("\n")
        begun.append(end)
        for line in lines:
            yield "".join(begun)
            begun = [line]
    if rest := "".join(begun):
        yield rest
