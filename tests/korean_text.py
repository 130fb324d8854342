"""Korean text that is at hand: the Korean pages of the spec, and tokenizers of it."""

from functools import lru_cache
from pathlib import Path

from looplm.tasks.language.corpus import read_text
from looplm.tasks.language.tokenizer import Tokenizer, train_tokenizer

PAGES = sorted((Path(__file__).parents[1] / "spec").glob("*.ko.md"))


@lru_cache
def korean() -> str:
    """All pages, each a document."""
    return "\f".join(read_text(path) for path in PAGES)


@lru_cache
def tokenizer(vocabulary: int = 1500) -> Tokenizer:
    """One of so many pieces."""
    return train_tokenizer([korean()], vocabulary)
