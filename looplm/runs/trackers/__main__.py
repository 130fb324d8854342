"""A tracker's process: `python -m looplm.runs.trackers NAME` reads what `_process.py` writes.

The first line says how to open the tracker, each further line holds a step, and an empty table finishes it; so does the end of
the lines, or of half a line, where the training was killed.
"""

import json
import os
import sys
from itertools import takewhile
from pathlib import Path
from traceback import print_exc

from looplm.runs.trackers import TRACKERS
from looplm.runs.trackers._process import FAILED


def main(name: str) -> None:
    """Feed the tracker of this name from standard input, which it does not see itself."""
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    messages = (json.loads(line) for line in lines if line.endswith("\n"))
    start = next(messages)
    tracker = TRACKERS.find(name)(**start | {"folder": Path(start["folder"])})
    for step in takewhile(bool, messages):
        tracker.log(**step)
    tracker.finish()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        print_exc()
        sys.exit(f"{FAILED}{type(error).__name__}: {' '.join(str(error).split())}")
