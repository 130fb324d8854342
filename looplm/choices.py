"""A choice is one file: whatever stands in a folder can be named in a recipe, and adding one edits no other file.

A folder such as `looplm/loop/halting` holds one module for each choice. The module's name, with `-` for `_`, is the name
that recipes use, and its `CHOICE` is the class. What lives outside the package is named `package.module:Class`.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from looplm.errors import InputError
from looplm.settings import problems_of

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
        """Names of the choices in the folder, sorted; nothing is imported but the folder itself."""
        found = iter_modules(import_module(self.package).__path__)
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

    def read(self, table: Any, key: str = "rule") -> Any:
        """A choice from its table, in which `key` names it and the rest are its settings; what is no table stays as it is.

        Meant as a validator of pydantic: mistakes are raised for it to report.
        """
        if not isinstance(table, Mapping):
            return table
        if key not in table:
            raise PydanticCustomError("choice", "`{key}` must name a {what}; there are: {names}", self._words(key))
        try:
            kind = self.find(str(table[key]))
            return TypeAdapter(kind).validate_python({name: value for name, value in table.items() if name != key})
        except ValidationError as error:
            message = "; ".join(problems_of(error, kind))
        except InputError as error:
            message = str(error).rstrip(".")
        raise PydanticCustomError("choice", "{message}", {"message": message})

    def write(self, choice: Any, key: str = "rule") -> dict[str, Any]:
        """The table from which `read` gives the choice again; settings that are None are left out."""
        settings = TypeAdapter(type(choice)).dump_python(choice, mode="json", exclude_none=True)
        return {key: self.name_of(type(choice)), **settings}

    def _words(self, key: str) -> dict[str, Any]:
        return {"key": key, "what": self.what, "names": ", ".join(self.names())}

    def _outside(self, path: str) -> type[Kind]:
        module, _, name = path.partition(":")
        try:
            found: type[Kind] = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            raise InputError(
                f"the {self.what} {path!r} cannot be imported: there is no module {error.name!r}. "
                "Install it, or put its folder on PYTHONPATH."
            ) from None
        except ImportError as error:
            raise InputError(f"the {self.what} {path!r} cannot be imported: {error}.") from None
        except AttributeError:
            raise InputError(f"the module {module!r} has no {name!r}, so there is no such {self.what}.") from None
        return found
