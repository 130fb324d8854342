"""Bodies: what thinks. A body is one file of this folder, or a class of one's own (see looplm/models/body.py)."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, overload

from pydantic import TypeAdapter, ValidationError

from looplm.choices import Choices
from looplm.chosen import Mistake, as_validation_error
from looplm.config import ModelConfig
from looplm.errors import InputError
from looplm.models.body import Body, BodySettings
from looplm.models.looped import LoopLM
from looplm.settings import nearest

BODIES: Choices[Body] = Choices("looplm.models", "body", apart=("body",))
"""The files of this folder."""
DEFAULT_BODY = "looped"
FACE = ("settings", "device", "reach", "decayed", "rates", "blocks", "states", "settle", "logits", "think")
"""What a class has to have to be a body."""


@overload
def build_model(config: ModelConfig) -> LoopLM: ...
@overload
def build_model(config: BodySettings) -> Body: ...
def build_model(config: BodySettings) -> Body:
    """A model with fresh weights.

    With `body = "static"` it is an ordinary Transformer: a stack of unshared layers, passed once, with neither state norm
    nor loop signal. It shares every path with the looped model, so a comparison of the two compares nothing else.

    Spec: [architecture.static][], [architecture.body][].
    """
    return BODIES.find(config.body)(config)


def body_of(table: Mapping[str, Any]) -> type[Body]:
    """The class of the body that a table of settings names.

    Raises:
        ValidationError: if there is none, or it lacks a part of a body.
    """
    name = table.get("body", DEFAULT_BODY)
    try:
        kind = BODIES.find(name if isinstance(name, str) else repr(name))
    except InputError as error:
        raise as_validation_error([(("body",), str(error).rstrip("."), name)]) from None
    if lacks := [f"`{part}`" for part in FACE if not hasattr(kind, part)]:
        raise as_validation_error([(("body",), f"{name!r} is no body: it lacks {', '.join(lacks)}", name)])
    return kind


def read_settings(table: Any) -> BodySettings:
    """The settings of the body that a table names by `body`; settings that are made already stay as they are.

    Raises:
        ValidationError: with every mistake of the table.

    Spec: [architecture.body][].
    """
    if not isinstance(table, Mapping):
        if hasattr(table, "body") and hasattr(table, "clauses"):
            settings: BodySettings = table
            return settings
        raise as_validation_error([((), "must be a table of settings", table)])
    kind = body_of(table).settings
    try:
        made: BodySettings = TypeAdapter(kind).validate_python(dict(table))
    except ValidationError as error:
        allowed = [each.name for each in fields(kind) if each.init]
        raise as_validation_error(_in_words(item, allowed) for item in error.errors()) from None
    return made


def _in_words(item: Any, allowed: list[str]) -> Mistake:
    """What pydantic found, as a sentence."""
    message = item["msg"].removeprefix("Value error, ").removesuffix(".")
    given = "" if item["type"] == "value_error" else f" (got {item['input']!r})"
    if item["type"] == "unexpected_keyword_argument":
        return item["loc"], f"unknown{given}; {nearest(str(item['loc'][-1]), allowed)}", item["input"]
    return item["loc"], message + given, item["input"]
