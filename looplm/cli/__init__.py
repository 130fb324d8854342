"""The command line: `looplm --help`.

Each command is a frozen dataclass: its fields are the arguments, its `run` does the work and gives the exit code. Heavy
modules are imported inside functions, so that help and refusals are quick, and a signal is heeded from the first moment.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

import looplm
from looplm.cli.console import FAILED, REFUSED, fail, forgive_encodings, remember
from looplm.errors import InputError
from looplm.runs.signals import handled

_CLOSED_PIPE = 141
"""Exit code where whoever read the output had enough, as of a program that SIGPIPE ends; nothing went wrong."""


def parse(arguments: list[str]) -> Any:
    """The command that the arguments ask for; it does not run yet. Leaves Python if they ask for help, or for nothing known."""
    import functools
    import operator
    from typing import Annotated

    import tyro

    from looplm.cli.commands import all_commands

    choices = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in all_commands().items()]
    any_of_them: Any = functools.reduce(operator.or_, choices)
    return tyro.cli(
        any_of_them,
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
    remember(arguments)
    with handled(_interrupt):
        try:
            code: int = parse(arguments).run()
            return code
        except InputError as error:
            fail(str(error))
            return REFUSED
        except BrokenPipeError:
            return _CLOSED_PIPE
        except OSError as error:
            fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
            return REFUSED
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            fail("there is not enough memory for this; ask for less at a time: fewer rows, shorter texts, fewer loops.")
            return FAILED
        except KeyboardInterrupt as interrupt:
            fail(str(interrupt) or "interrupted.")
            return 128 + getattr(interrupt, "signum", signal.SIGINT)


def _lacks_memory(error: Exception) -> bool:
    """Whether it says so; PyTorch has no class of its own for a CPU."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in ("can't allocate memory", "out of memory"))


def entry() -> None:
    """What the shell calls: run one command and leave with its exit code."""
    forgive_encodings()
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _CLOSED_PIPE
    if code > 128:
        # Python would report an interrupt once more, as a signal, if it first struck code that a library runs from C.
        os._exit(code)
    sys.exit(code)


class _Signalled(KeyboardInterrupt):
    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Interrupt; at once where a module is being imported, since a library may swallow what is raised there."""
    while frame is not None:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            fail("interrupted.")
            os._exit(128 + signum)
        frame = frame.f_back
    raise _Signalled(signum)
