"""A halting rule from its table, and back; mistakes keep their paths, so that a whole recipe reports them at once."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from looplm.choices import Choices
from looplm.errors import InputError

Mistake = tuple[tuple[str | int, ...], str, Any]
"""Where it is in the table, what is wrong, and what was given."""


def read_rule(rules: Choices[Any], table: Any, default: str) -> Any:
    """The rule that a table names under `rule`, made of the rest of the table.

    Raises:
        ValidationError: with every mistake of the table.
    """
    if not isinstance(table, Mapping):
        raise as_validation_error([((), "must be a table that names a `rule`", table)])
    name = table.get("rule", default)
    kind = _find(rules, name)
    settings = {key: value for key, value in table.items() if key != "rule"}
    allowed = [each.name for each in fields(kind) if each.init]
    mistakes: list[Mistake] = [
        ((key,), f"has no meaning for the rule {name!r} (got {value!r}); {_nearest(key, allowed)}", value)
        for key, value in settings.items()
        if key not in allowed
    ]
    rule = None
    try:
        rule = TypeAdapter(kind).validate_python({key: value for key, value in settings.items() if key in allowed})
    except ValidationError as error:
        mistakes += [_in_words(item, name) for item in error.errors()]
    else:
        if not (callable(rule) and hasattr(rule, "max_loops")):
            problem = f"{name!r} is no halting rule: it needs `max_loops`, and to be called on Evidence"
            mistakes.append((("rule",), problem, name))
    if mistakes:
        raise as_validation_error(mistakes)
    return rule


def write_rule(rules: Choices[Any], rule: Any) -> dict[str, Any]:
    """The table that `read_rule` makes the rule of; settings that are off by default, None or false, are left out."""
    adapter, given = TypeAdapter(type(rule)), {each.name for each in fields(rule) if each.init}
    changed = adapter.dump_python(rule, mode="json", exclude_defaults=True)
    whole = adapter.dump_python(rule, mode="json")
    kept = {key: value for key, value in whole.items() if key in changed or not (value is None or value is False)}
    return {"rule": rules.name_of(type(rule)), **{key: value for key, value in kept.items() if key in given}}


def under(place: tuple[str | int, ...], error: ValidationError) -> list[Mistake]:
    """The mistakes of a table that stands at a place of another."""
    return [((*place, *item["loc"]), item["msg"], item["input"]) for item in error.errors()]


def as_validation_error(mistakes: Iterable[Mistake]) -> ValidationError:
    """Mistakes in the form in which pydantic gathers them with those of other settings."""
    lines = [InitErrorDetails(type=PydanticCustomError("value_error", text), loc=at, input=got) for at, text, got in mistakes]
    return ValidationError.from_exception_data("halting", lines)


def _find(rules: Choices[Any], name: Any) -> Any:
    """The class of this name, if it is one that a table can make."""
    try:
        kind: Any = rules.find(name if isinstance(name, str) else repr(name))
    except InputError as error:
        raise as_validation_error([(("rule",), str(error).rstrip("."), name)]) from None
    if not is_dataclass(kind):
        problem = f"{name!r} is no dataclass, so its settings cannot be read from a table"
        raise as_validation_error([(("rule",), problem, name)])
    return kind


def _in_words(item: Any, name: str) -> Mistake:
    """What pydantic found, as a sentence about the rule."""
    if item["type"] == "missing":
        return item["loc"], f"must be given for the rule {name!r}", item["input"]
    given = "" if item["type"] == "value_error" else f" (got {item['input']!r})"
    return item["loc"], item["msg"].removeprefix("Value error, ") + given, item["input"]


def _nearest(name: str, allowed: list[str]) -> str:
    near = get_close_matches(name, allowed, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"its settings are: {', '.join(allowed)}"
