"""Settings: frozen, self-checking dataclasses, and the TOML tables that fill them.

A table may say `extends = "other"`: it takes another table and changes what is named, so that a control says exactly how
it differs from what it controls.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from looplm.errors import InputError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""For dataclasses of settings: an unknown name is a mistake, and so is a number that is none."""
Config = TypeVar("Config")
Table = dict[str, Any]


def parse(kind: type[Config], table: Mapping[str, Any], where: str, context: Any = None) -> Config:
    """A checked config from a table of settings.

    Args:
        kind: of the config.
        table: its settings.
        where: names the table in the error.
        context: what the config's own checks are told.

    Raises:
        InputError: with every mistake at once, each with its field and what was given.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(table), context=context)
    except ValidationError as error:
        raise InputError(f"{where} is not valid: {'; '.join(problems_of(error, kind))}.") from None


def wrong_in(kind: Any, value: Any) -> str:
    """Why a value from a file is none of this kind, such as a TypedDict: the first few places; empty if it is one."""
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        return "; ".join(problems_of(error, kind)[:3])
    return ""


def problems_of(error: ValidationError, kind: Any) -> list[str]:
    """Every mistake that pydantic found in a table for `kind`, each with its field and what was given."""
    problems = []
    for item in error.errors():
        message = item["msg"].removeprefix("Value error, ").removesuffix(".")
        field = ".".join(str(part) for part in item["loc"])
        told = isinstance(item["input"], dict) or item["type"] in ("value_error", "choice")
        given = "" if told else f" (got {item['input']!r})"
        if item["type"] == "unexpected_keyword_argument":
            message = f"unknown{given}; {_allowed_keys(kind, item['loc'])}"
            given = ""
        problems.append(f"`{field}`: {message}{given}" if field else message)
    return problems


def _allowed_keys(kind: Any, place: tuple[int | str, ...]) -> str:
    """What may stand where an unknown key stands: the nearest keys, or all."""
    for part in place[:-1]:
        kind = get_type_hints(kind).get(str(part)) if is_dataclass(kind) else None
        kind = next((choice for choice in get_args(kind) if is_dataclass(choice)), kind)
    allowed = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    return nearest(str(place[-1]), allowed)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """What to say to someone who gave an unknown name: those that are near, or all."""
    allowed = list(allowed)
    near = [other for other in allowed if other.startswith(f"{name}_")] or get_close_matches(name, allowed, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(allowed)}"


def as_table(config: Any) -> Table:
    """A config as plain tables, lists and numbers, without what is None: ready for TOML or JSON."""
    plain = TypeAdapter(type(config)).dump_python(config, mode="json", exclude_none=True)
    assert isinstance(plain, dict)
    return plain


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Table:
    """A table with another laid over it: tables are merged, all else is replaced; so is one that names its `rule` or `name`."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        chosen = isinstance(value, dict) and ("rule" in value or "name" in value)  # settings belong to what they were made for
        kept = isinstance(old, dict) and isinstance(value, dict) and not chosen
        merged[key] = merge(merged[key], value) if kept else value
    return merged


def read_toml(path: Path) -> Table:
    """The tables of a TOML file.

    Raises:
        InputError: if it cannot be read, or is no TOML; with the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a TOML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}.") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None


def read_extended(name_or_path: str, find: Callable[[str], Path]) -> Table:
    """The tables of a file, laid over those of the file that it extends.

    Args:
        name_or_path: a name that `find` knows, or a path that ends in .toml.
        find: gives the file of a name, or raises InputError.

    Raises:
        InputError: if a file is missing or wrong, or the files extend each other in a circle.
    """
    tables: list[Table] = []
    seen: list[Path] = []
    here = name_or_path
    base: Path | None = None
    while True:
        path = _path_of(here, base) if here.endswith(".toml") else find(here)
        if path in seen:
            raise InputError(f"{name_or_path} extends itself, by way of {' and '.join(p.name for p in seen)}.")
        seen.append(path)
        table = read_toml(path)
        parent = table.pop("extends", None)
        tables.append(table)
        if parent is None:
            break
        here, base = str(parent), path.parent
    whole: Table = {}
    for table in reversed(tables):
        whole = merge(whole, table)
    return whole


def _path_of(given: str, base: Path | None) -> Path:
    """A path in an `extends` is meant from the file that says so."""
    path = Path(given)
    return base / path if base and not path.is_absolute() else path


def changes_of(assignments: Iterable[str]) -> Table:
    """Tables from assignments such as `training.batch_size=64`; values are written as in TOML, and text may stand bare.

    Raises:
        InputError: if one has no name or no `=`.
    """
    changes: Table = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        keys = [key.strip() for key in name.split(".")]
        if not equals or not all(keys):
            raise InputError(f"{assignment!r} is no setting; write NAME=VALUE, such as training.batch_size=64.")
        table: Table = {keys[-1]: _value(value.strip())}
        for key in reversed(keys[:-1]):
            table = {key: table}
        changes = merge(changes, table)
    return changes


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
