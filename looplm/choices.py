"""A choice is one file: whatever stands in a folder can be named in a recipe, and adding one edits no other file.

A folder such as `looplm/loop/halting` holds one module for each choice. The module's name, with `-` for `_`, is the name
that recipes use, and its `CHOICE` is the class. What lives outside the package is named `package.module:Class`.
"""

import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from looplm.errors import InputError

Kind = TypeVar("Kind")


class Choices(Generic[Kind]):
    """The choices of one folder.

    Args:
        package: the folder, as a dotted name.
        what: what one of them is called in messages, such as "halting rule".
        apart: modules of the folder that are no choices.
    """

    def __init__(self, package: str, what: str, apart: tuple[str, ...] = ()) -> None:
        self.package, self.what, self.apart = package, what, apart

    def names(self) -> list[str]:
        """Names of the choices in the folder, sorted; neither they nor the folder are imported for it."""
        found = iter_modules(_places(self.package))
        return sorted(m.name.replace("_", "-") for m in found if not m.name.startswith("_") and m.name not in self.apart)

    def __iter__(self) -> Iterator[type[Kind]]:
        return map(self.find, self.names())

    def find(self, name: str) -> type[Kind]:
        """The class of this name, or of the path `package.module:Class`.

        Raises:
            InputError: if there is none; the nearest names are named.
        """
        if ":" in name:
            return self._outside(name)
        if name not in self.names():
            near = get_close_matches(name, self.names(), n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(self.names())}"
            raise InputError(f"there is no {self.what} {name!r}; {hint}, or give package.module:Class.")
        found: type[Kind] = import_module(f"{self.package}.{name.replace('-', '_')}").CHOICE
        return found

    def name_of(self, choice: type[Kind]) -> str:
        """The name under which a recipe finds this class again."""
        package, _, module = choice.__module__.rpartition(".")
        if package == self.package:
            return module.replace("_", "-")
        if choice.__module__.startswith(self.package + "."):  # a choice that is a folder
            return choice.__module__.removeprefix(self.package + ".").split(".")[0].replace("_", "-")
        return f"{choice.__module__}:{choice.__qualname__}"

    def _outside(self, path: str) -> type[Kind]:
        module, _, name = path.partition(":")
        try:
            home = import_module(module)
        except ModuleNotFoundError as error:
            raise InputError(
                f"the {self.what} {path!r} cannot be imported: there is no module {error.name!r}. "
                "Install it, or put its folder on PYTHONPATH."
            ) from None
        except Exception as error:  # whatever a module of the user's raises
            raise InputError(f"the {self.what} {path!r} cannot be imported: {type(error).__name__}: {error}.") from error
        if not hasattr(home, name):
            raise InputError(f"the module {module!r} has no {name!r}, so there is no such {self.what}.")
        found: Any = getattr(home, name)
        if not isinstance(found, type):
            raise InputError(f"{path!r} is no class, so it is no {self.what}.")
        return found


def _places(package: str) -> Iterable[str]:
    """Folders in which a package's modules stand."""
    if package in sys.modules:
        return sys.modules[package].__path__
    found = find_spec(package)
    assert found is not None and found.submodule_search_locations is not None, f"{package} is a folder of this package"
    return found.submodule_search_locations
