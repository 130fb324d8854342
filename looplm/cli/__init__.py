"""The command line: `looplm --help`.

Each command is a frozen dataclass: its fields are the arguments, its `run` does the work and gives the exit code.
Heavy modules are imported inside `run`, so that help and refusals are quick. A task brings its own commands in the file
`verbs.py` of its folder, as `VERBS`.
"""

import functools
import operator
import os
import signal
import sys
import threading
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import tyro

import looplm
from looplm.cli.bench import Bench
from looplm.cli.conform import Conform
from looplm.cli.console import INTERRUPTED, REFUSED, fail
from looplm.cli.evaluate import Eval, Report
from looplm.cli.plan import PlanCommand
from looplm.cli.profile import ProfileCommand
from looplm.cli.runs import Runs
from looplm.cli.ship import Ship
from looplm.cli.spec import Spec
from looplm.cli.study import StudyCommand
from looplm.cli.trace import Trace
from looplm.cli.train import Train
from looplm.errors import InputError

COMMANDS: dict[str, Any] = {
    "train": Train,
    "runs": Runs,
    "eval": Eval,
    "trace": Trace,
    "report": Report,
    "study": StudyCommand,
    "ship": Ship,
    "plan": PlanCommand,
    "profile": ProfileCommand,
    "spec": Spec,
    "conform": Conform,
    "bench": Bench,
}
"""Those that serve every task."""


def commands() -> dict[str, Any]:
    """All commands by name: those of every task, then those that a task brings."""
    found = dict(COMMANDS)
    for path in sorted((Path(__file__).parents[1] / "tasks").glob("*/verbs.py")):
        # as a file, since importing the task's folder would import torch
        spec = spec_from_file_location(f"looplm.tasks.{path.parent.name}.verbs", path)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        sys.modules.setdefault(spec.name, module)
        spec.loader.exec_module(module)
        found |= module.VERBS
    return found


def parse(arguments: list[str]) -> Any:
    """The command that the arguments ask for; it does not run yet. Leaves Python if they ask for help, or for nothing known."""
    choices = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in commands().items()]
    return tyro.cli(
        functools.reduce(operator.or_, choices),  # type: ignore[call-overload]
        prog="looplm",
        description=f"LoopLM {looplm.__version__}: a looped language model to read, run, test and cite.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    The exit code is 0, 1 (part of the work failed), 2 (refused), or 128 and the number of the signal that stopped it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(looplm.__version__)
        return 0
    handlers = _heed_signals()
    try:
        code: int = parse(arguments).run()
        return code
    except InputError as error:
        fail(str(error))
        return REFUSED
    except OSError as error:
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
        return REFUSED
    except KeyboardInterrupt as interrupt:
        fail(str(interrupt) or "interrupted.")
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def entry() -> None:
    """What the shell calls: run one command and leave with its exit code."""
    code = main()
    if code >= INTERRUPTED - 1:
        # Python would report an interrupt once more, as a signal, if it first struck code that a library runs from C.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


class _Signalled(KeyboardInterrupt):
    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def _heed_signals() -> dict[int, Any]:
    """Let every signal that asks for an end interrupt; gives the handlers of before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    named = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    return {number: signal.signal(number, _interrupt) for number in named if number is not None}


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Interrupt; at once where a module is being imported, since a library may swallow what is raised there."""
    while frame is not None:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            fail("interrupted.")
            os._exit(128 + signum)
        frame = frame.f_back
    raise _Signalled(signum)
