"""A choice from its table, and back; mistakes keep their paths, so that a whole recipe reports them at once.

In a table, `rule` (of a task: `name`) names the choice, and the rest are its settings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from looplm.choices import Choices
from looplm.errors import InputError

Mistake = tuple[tuple[str | int, ...], str, Any]
"""Where it is in the table, what is wrong, and what was given."""


def read_choice(choices: Choices[Any], table: Any, *, key: str = "rule", default: str = "", face: Sequence[str] = ()) -> Any:
    """The choice that a table names, made of the rest of the table; what is no table stays as it is.

    Args:
        choices: what there is.
        table: of settings.
        key: under which it names the choice.
        default: the name where the table gives none.
        face: what the class has to have to be such a choice.

    Raises:
        ValidationError: with every mistake of the table.
    """
    if not isinstance(table, Mapping):
        if is_dataclass(table) and not isinstance(table, type):
            return table
        raise as_validation_error([((), f"must be a table that names a `{key}`", table)])
    name = table.get(key, default)
    kind = _find(choices, name, key, face)
    settings = {setting: value for setting, value in table.items() if setting != key}
    allowed = [each.name for each in fields(kind) if each.init]
    mistakes: list[Mistake] = [
        ((setting,), f"has no meaning for the {choices.what} {name!r} (got {value!r}); {_nearest(setting, allowed)}", value)
        for setting, value in settings.items()
        if setting not in allowed
    ]
    chosen = None
    try:
        chosen = TypeAdapter(kind).validate_python({key: value for key, value in settings.items() if key in allowed})
    except ValidationError as error:
        mistakes += [_in_words(item, choices.what, name) for item in error.errors()]
    if mistakes:
        raise as_validation_error(mistakes)
    return chosen


def write_choice(choices: Choices[Any], chosen: Any, *, key: str = "rule") -> dict[str, Any]:
    """The table that `read_choice` makes it of; settings that are off by default, None or false, are left out."""
    adapter, given = TypeAdapter(type(chosen)), {each.name for each in fields(chosen) if each.init}
    changed = adapter.dump_python(chosen, mode="json", exclude_defaults=True)
    whole = adapter.dump_python(chosen, mode="json")
    kept = {name: value for name, value in whole.items() if name in changed or not (value is None or value is False)}
    return {key: choices.name_of(type(chosen)), **{name: value for name, value in kept.items() if name in given}}


def under(place: tuple[str | int, ...], error: ValidationError) -> list[Mistake]:
    """The mistakes of a table that stands at a place of another."""
    return [((*place, *item["loc"]), item["msg"], item["input"]) for item in error.errors()]


def as_validation_error(mistakes: Iterable[Mistake]) -> ValidationError:
    """Mistakes in the form in which pydantic gathers them with those of other settings."""
    lines = [InitErrorDetails(type=PydanticCustomError("value_error", text), loc=at, input=got) for at, text, got in mistakes]
    return ValidationError.from_exception_data("settings", lines)


def _find(choices: Choices[Any], name: Any, key: str, face: Sequence[str]) -> Any:
    """The class of this name, if it is one that a table can make."""
    try:
        kind: Any = choices.find(name if isinstance(name, str) else repr(name))
    except InputError as error:
        raise as_validation_error([((key,), str(error).rstrip("."), name)]) from None
    there = {*dir(kind), *(each.name for each in fields(kind))} if is_dataclass(kind) else set(dir(kind))
    lacks = [f"`{part}`" for part in face if part not in there]
    if lacks or not is_dataclass(kind):
        what = f"it lacks {', '.join(lacks)}" if lacks else "it must be a dataclass of its settings"
        raise as_validation_error([((key,), f"{name!r} is no {choices.what}: {what}", name)])
    return kind


def _in_words(item: Any, what: str, name: str) -> Mistake:
    """What pydantic found, as a sentence about the choice."""
    if item["type"] == "missing":
        return item["loc"], f"must be given for the {what} {name!r}", item["input"]
    given = "" if item["type"] == "value_error" else f" (got {item['input']!r})"
    return item["loc"], item["msg"].removeprefix("Value error, ") + given, item["input"]


def _nearest(name: str, allowed: list[str]) -> str:
    near = get_close_matches(name, allowed, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"its settings are: {', '.join(allowed)}"
