"""`python -m looplm` is `looplm`."""

from looplm.cli import entry

entry()
