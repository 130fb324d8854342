"""Settings as frozen, self-checking dataclasses, and the presets that fill them.

A preset is a TOML file in spec/presets. `extends = "other"` takes another preset and changes what is named, so that a
control says exactly how it differs from what it controls.
"""

import tomllib
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, Self, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from looplm.errors import InputError
from looplm.resources import resource

_STRICT = ConfigDict(extra="forbid")
Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelConfig:
    """Sizes and choices of one model; with the weights, all that is needed to run it."""

    body: Literal["looped", "static"] = "looped"
    vocab_size: int = Field(ge=2)
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    kv_heads: int | None = Field(default=None, ge=1)
    """Heads of keys and values; each serves `heads / kv_heads` heads of queries. None: as many as `heads`."""
    layers: int = Field(default=1, ge=1)
    """Layers of the shared block (looped), or of the whole stack (static)."""
    mlp: Literal["gelu", "swiglu"] = "gelu"
    mlp_width: int = Field(ge=1)
    norm: Literal["rms", "layer"] = "rms"
    embedding_std: float = Field(default=0.02, gt=0)

    positions: Literal["none", "rope", "learned", "digit-place"] = "rope"
    max_positions: int = Field(default=0, ge=0)
    """Longest text in tokens, for learned positions; the other schemes have no limit and take 0."""
    digit_ids: tuple[int, ...] = ()
    """Token ids that count as digits, for digit-place positions."""
    place_reach: int = Field(default=2, ge=1)
    """Differences of digit places are clipped to ± this many places."""
    place_window: int | None = Field(default=None, ge=0)
    """Digits more than this many places away cannot be seen; None: no window."""
    place_strict: bool = False
    """Tokens that are no digits see no digits, so a digit is felt at another place only through the places between."""

    injection: Literal["every", "first"] = "every"
    loop_signal: Literal["none", "sinusoidal", "learned"] = "none"
    loop_signal_loops: int = Field(default=1, ge=1)
    """Loops with a signal of their own; later loops repeat the last one."""
    state_norm: bool = True
    gate: bool = False
    """A learned gate: after each loop, a probability that the token should halt."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"`width` must be a multiple of `heads`: got {self.width} and {self.heads}")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"`heads` must be a multiple of `kv_heads`: got {self.heads} and {self.kv_heads}")
        if self.positions == "rope" and (self.width // self.heads) % 2:
            raise ValueError(f"RoPE rotates pairs: width / heads must be even, got {self.width // self.heads}")
        if (self.positions == "learned") != (self.max_positions > 0):
            raise ValueError("`max_positions` must be given for learned positions, and only for them")
        if (self.positions == "digit-place") != bool(self.digit_ids):
            raise ValueError("`digit_ids` must be given for digit-place positions, and only for them")
        if self.place_strict and self.positions != "digit-place":
            raise ValueError("`place_strict` has a meaning for digit-place positions only")
        if self.body == "static" and (self.state_norm or self.loop_signal != "none"):
            raise ValueError("a static model has one loop: set `state_norm = false` and `loop_signal = 'none'`")
        return self

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that a model of this configuration exercises."""
        chosen = ["embedding", "loop", "seen", "causal", "positions", "layer", "projections", "tied-head", "guess"]
        chosen = [*(f"architecture.{name}" for name in chosen), f"injection.{self.injection}-loop"]
        chosen += [f"architecture.{self.mlp}", f"architecture.{self.norm}-norm"]
        chosen += ["architecture.static"] if self.body == "static" else ["architecture.shared-block"]
        chosen += ["architecture.grouped-queries"] if self.kv_heads not in (None, self.heads) else []
        chosen += ["architecture.loop-signal"] if self.loop_signal != "none" else []
        chosen += ["architecture.learned-loop-signal"] if self.loop_signal != "sinusoidal" else []
        chosen += ["halting.kv-pass"] if self.layers > 1 and self.body == "looped" else []
        chosen += {
            "none": [],
            "rope": ["architecture.rope"],
            "learned": ["architecture.learned-positions"],
            "digit-place": ["architecture.digit-place", "architecture.digit-place-bias"],
        }[self.positions]
        if self.place_window is not None and self.positions == "digit-place":
            chosen.append("architecture.digit-place-window")
        if self.place_strict:
            chosen.append("architecture.digit-place-strict")
        if self.gate:
            chosen.append("halting.gate-probability")
        return tuple(chosen)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """What training problems are drawn."""

    format: Literal["plain", "reversed", "double-reversed", "equals-first"] = "double-reversed"
    mode: Literal["left-to-right", "parallel"] = "left-to-right"
    """How answers are given: token after token, or all at once, each token in a slot of its own."""
    min_digits: int = Field(default=1, ge=1)
    max_digits: int = Field(default=4, ge=1, le=1000)
    equal_length_share: float = Field(default=0.4, ge=0, le=1)
    carry_heavy_share: float = Field(default=0.3, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_digits > self.max_digits:
            raise ValueError(f"`min_digits` ({self.min_digits}) must not exceed `max_digits` ({self.max_digits})")
        if self.mode == "parallel" and self.format == "equals-first":
            raise ValueError(
                "`mode = 'parallel'` fills the slots of a sum, which stands last: `format` must not be 'equals-first'"
            )
        return self

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that training on these problems exercises."""
        return (
            "addition.sequence",
            f"addition.{self.format}",
            "addition.answer",
            "addition.held-out",
            "addition.training-draw",
            *(["addition.slots"] if self.mode == "parallel" else []),
        )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainingConfig:
    """How a model is trained."""

    steps: int = Field(default=3000, ge=1)
    batch_size: int = Field(default=96, ge=1)
    min_loops: int = Field(default=2, ge=1)
    max_loops: int = Field(default=6, ge=1)
    restart_share: float = Field(default=0, ge=0, le=1)
    """Share of batches that start from a state that the loop has made, not from 0."""
    restart_loops: int = Field(default=12, ge=1)
    """Most loops, without gradient, that make that state."""
    stale_share: float = Field(default=0.6, ge=0, le=1)
    """Share of the restarts whose state was made from other problems of the batch."""
    resumed_loops: int = Field(default=3, ge=1)
    """Most loops, with gradient, after a restart from a problem's own state."""
    state_noise: float = Field(default=0, ge=0)
    """Standard deviation of the Gaussian noise added to the state after each loop."""
    score: Literal["second-half", "all"] = "second-half"
    """The loops whose predictions are scored."""
    not_known_yet: bool = False
    """Slots learn to predict `<slot>` after loops by which the carry into them cannot have come."""
    peak_learning_rate: float = Field(default=3e-3, gt=0)
    final_learning_rate_share: float = Field(default=0.02, ge=0, le=1)
    warmup_steps: int = Field(default=100, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_loops > self.max_loops:
            raise ValueError(f"`min_loops` ({self.min_loops}) must not exceed `max_loops` ({self.max_loops})")
        if self.not_known_yet and self.score != "all":
            raise ValueError("`not_known_yet` says what is right after every loop: it needs `score = 'all'`")
        return self

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that training exercises."""
        names = ["loop-count", "answer-loss", "learning-rate", "weight-decay", "deterministic"]
        names += ["second-half"] if self.score == "second-half" else ["all-loops"]
        names += ["not-known-yet"] if self.not_known_yet else []
        names += ["restarts"] if self.restart_share > 0 else []
        names += ["state-noise"] if self.state_noise > 0 else []
        return tuple(f"training.{name}" for name in names)


Rule = Literal["fixed", "confidence", "two-equal-argmaxes", "state-change", "prefix-stability", "gate"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RuleConfig:
    """When a token stops thinking."""

    rule: Rule = "two-equal-argmaxes"
    max_loops: int = Field(default=6, ge=1)
    min_loops: int = Field(default=1, ge=1)
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Probability; for `confidence`, `prefix-stability` and `gate`."""
    epsilon: float | None = Field(default=None, gt=0)
    """Change of the state in one loop, relative to its norm; for `state-change` and `prefix-stability`."""
    unknown_id: int | None = Field(default=None, ge=0)
    """A token id that says "not known yet": a token that guesses it goes on; for `confidence`."""
    in_order: bool = False
    """An answer token waits until all answer tokens before it have halted; `prefix-stability` always does."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_loops > self.max_loops:
            raise ValueError(f"`min_loops` ({self.min_loops}) must not exceed `max_loops` ({self.max_loops})")
        needed = self._takes()
        for name in ("threshold", "epsilon"):
            if (getattr(self, name) is not None) != (name in needed):
                wanted = "must be given" if name in needed else "has no meaning"
                raise ValueError(f"`{name}` {wanted} for the rule {self.rule!r}")
        if self.unknown_id is not None and self.rule != "confidence":
            raise ValueError(f"`unknown_id` has no meaning for the rule {self.rule!r}")
        if self.in_order and self.rule in ("fixed", "prefix-stability"):
            raise ValueError(f"`in_order` changes nothing for the rule {self.rule!r}")
        return self

    def _takes(self) -> tuple[str, ...]:
        takes: dict[str, tuple[str, ...]] = {
            "confidence": ("threshold",),
            "state-change": ("epsilon",),
            "prefix-stability": ("threshold", "epsilon"),
            "gate": ("threshold",),
        }
        return takes.get(self.rule, ())

    def settings(self) -> dict[str, Any]:
        """What the rule takes beside `max_loops`."""
        taken = {name: getattr(self, name) for name in ("min_loops", *self._takes())}
        taken |= {} if self.unknown_id is None else {"unknown_id": self.unknown_id}
        return taken | ({"in_order": True} if self.in_order else {})


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class HaltingConfig(RuleConfig):
    """When the tokens of an answer stop thinking, and those of the prompt."""

    prompt: RuleConfig | None = None
    """The rule of tokens from which no answer token is read; None: they run all `max_loops` loops."""

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that these rules exercise."""
        names = ["at-least-one-loop", "bounds", "roles", "freeze", "kv-publish", self.rule]
        names += [self.prompt.rule] if self.prompt else ["fixed"]
        names += ["not-known-yet"] if self.unknown_id is not None else []
        names += ["in-order"] if self.in_order else []
        if self.prompt and self.rule == self.prompt.rule == "confidence":
            names.append("wait-to-think")
        return tuple(f"halting.{name}" for name in names)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvaluationConfig:
    """What a trained adder is tested on."""

    digits: tuple[int, ...] = (4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 100)
    problems_per_cell: int = Field(default=200, ge=1)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that the tests exercise."""
        return ("addition.uniform-set", "addition.carry-heavy-set", "addition.exact-match")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class GateConfig:
    """How a learned gate is trained, after the model, which it leaves as it is."""

    objective: Literal["right", "ponder"] = "right"
    """To say whether the guess is right now; or PonderNet's expected loss with a geometric prior."""
    steps: int = Field(default=1000, ge=1)
    learning_rate: float = Field(default=1e-2, gt=0)
    max_loops: int = Field(default=8, ge=1)
    """Loops of every batch."""
    prior: float = Field(default=0.2, gt=0, lt=1)
    """Halting probability of the geometric prior; for `ponder`."""
    prior_weight: float = Field(default=0.01, ge=0)
    """Of the divergence from the prior; for `ponder`."""

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that training the gate exercises."""
        return ("training.gate", f"training.gate-{self.objective}")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Preset:
    """One experiment, complete: a file in spec/presets, resolved."""

    name: str
    title: str
    model: ModelConfig
    data: DataConfig = Field(default_factory=DataConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    halting: HaltingConfig = Field(default_factory=HaltingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    gate: GateConfig | None = None
    """How the gate is trained, if the model has one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.model.gate != (self.gate is not None):
            raise ValueError("`model.gate = true` and the table `gate` go together: a gate has to be trained")
        if not self.model.gate and "gate" in (self.halting.rule, self.halting.prompt and self.halting.prompt.rule):
            raise ValueError("the halting rule 'gate' needs a model with a gate: set `model.gate = true`, and train it")
        if self.training.not_known_yet and (self.data.mode != "parallel" or self.data.format != "double-reversed"):
            raise ValueError(
                "`training.not_known_yet` is about slots: it needs `data.mode = 'parallel'`, format double-reversed"
            )
        if self.training.restart_share > 0 and self.model.injection == "first":
            raise ValueError(
                "`training.restart_share` must be 0 with `model.injection = 'first'`: "
                "a loop that never reads the input again cannot recover from another problem's state"
            )
        return self

    def clauses(self) -> tuple[str, ...]:
        """Ids of all clauses that a run of this preset exercises, sorted."""
        parts = (self.model, self.data, self.training, self.halting, self.evaluation, *((self.gate,) if self.gate else ()))
        return tuple(sorted({clause for part in parts for clause in part.clauses()}))


def preset_names() -> list[str]:
    """Names of the presets in spec/presets, sorted."""
    return sorted(path.stem for path in resource("spec/presets").glob("*.toml"))


def load_preset(name: str, **training: Any) -> Preset:
    """The preset of this name; keyword arguments replace settings of its training.

    Raises:
        InputError: if there is no such preset, or a setting is unknown or out of its range.
    """
    given = {key: value for key, value in training.items() if value is not None}
    return derive_preset(name, {"training": given})


def derive_preset(name: str, changes: dict[str, Any]) -> Preset:
    """The preset of this name with the settings of a table in place of its own.

    Raises:
        InputError: if there is no such preset, or a setting is unknown or out of its range.
    """
    return parse(Preset, merge(merge(_read(name), {"name": name}), changes), where=f"preset {name!r}")


def parse(kind: type[Config], table: dict[str, Any], where: str) -> Config:
    """A checked config from a table of settings; `where` names the table in the error.

    Raises:
        InputError: with every mistake at once, each with its field and what was given.
    """
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            message = item["msg"].removeprefix("Value error, ")
            field = ".".join(str(part) for part in item["loc"])
            given = "" if isinstance(item["input"], dict) or item["type"] == "value_error" else f" (got {item['input']!r})"
            if item["type"] == "unexpected_keyword_argument":
                message = f"unknown{given}; {_allowed_keys(kind, item['loc'])}"
                given = ""
            problems.append(f"`{field}`: {message}{given}" if field else message)
        raise InputError(f"{where} is not valid: {'; '.join(problems)}.") from None


def _allowed_keys(kind: Any, place: tuple[int | str, ...]) -> str:
    """What may stand where an unknown key stands: the nearest keys, or all."""
    for part in place[:-1]:
        kind = get_type_hints(kind).get(str(part)) if is_dataclass(kind) else None
        kind = next((choice for choice in get_args(kind) if is_dataclass(choice)), kind)
    allowed = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    near = [name for name in allowed if name.startswith(f"{place[-1]}_")] or get_close_matches(str(place[-1]), allowed, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(allowed)}"


def as_table(config: Any) -> dict[str, Any]:
    """A config as plain tables, lists and numbers, without what is None: ready for TOML or JSON."""
    plain = TypeAdapter(type(config)).dump_python(config, mode="json", exclude_none=True)
    assert isinstance(plain, dict)
    return plain


def _read(name: str) -> dict[str, Any]:
    path = resource("spec/presets") / f"{name}.toml"
    if name not in preset_names():
        raise InputError(f"There is no preset {name!r}; there are: {', '.join(preset_names())}.")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    parent = table.pop("extends", None)
    return merge(_read(parent), table) if parent else table


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A table with another laid over it: tables are merged, all else is replaced; so is a table that names its `rule`."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        kept = isinstance(old, dict) and isinstance(value, dict) and "rule" not in value  # settings belong to their rule
        merged[key] = merge(merged[key], value) if kept else value
    return merged
