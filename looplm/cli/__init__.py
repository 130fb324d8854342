"""The command line: `looplm --help`.

Each command is a frozen dataclass: its fields are the arguments, its `run` does the work and gives the exit code.
Heavy modules are imported inside `run`, so that help and refusals are quick.
"""

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import tyro

import looplm
from looplm.cli.bench import Bench
from looplm.cli.conform import Conform
from looplm.cli.console import INTERRUPTED, REFUSED, fail
from looplm.cli.data import Data
from looplm.cli.evaluate import Eval, Report
from looplm.cli.trace import Solve, Trace
from looplm.cli.plan import PlanCommand
from looplm.cli.profile import ProfileCommand
from looplm.cli.spec import Spec
from looplm.cli.study import StudyCommand
from looplm.cli.train import Train
from looplm.errors import InputError

Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Solve, tyro.conf.subcommand("solve")]
    | Annotated[Trace, tyro.conf.subcommand("trace")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[StudyCommand, tyro.conf.subcommand("study")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[PlanCommand, tyro.conf.subcommand("plan")]
    | Annotated[ProfileCommand, tyro.conf.subcommand("profile")]
    | Annotated[Spec, tyro.conf.subcommand("spec")]
    | Annotated[Conform, tyro.conf.subcommand("conform")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 (part of the work failed), 2 (refused) or 130 (interrupted)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(looplm.__version__)
        return 0
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        command = tyro.cli(
            Command,
            prog="looplm",
            description=f"LoopLM {looplm.__version__}: a looped language model to read, run, test and cite.",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        code: int = command.run()
        return code
    except InputError as error:
        fail(str(error))
        return REFUSED
    except OSError as error:
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}. Nothing was written.")
        return REFUSED
    except KeyboardInterrupt:
        fail("interrupted; nothing was written.")
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def entry() -> None:
    """What the shell calls: run one command and leave with its exit code."""
    code = main()
    if code == INTERRUPTED:
        # Python would report an interrupt once more, as a signal, if it first struck code that a library runs from C.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
