"""How a model is trained, as settings."""

from typing import Annotated, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, model_validator
from pydantic.dataclasses import dataclass

from looplm.chosen import read_choice, write_choice
from looplm.settings import STRICT, Table
from looplm.train.schedules import SCHEDULES, Schedule
from looplm.train.schedules.cosine import Cosine

ScheduleField = Annotated[
    Schedule,
    PlainValidator(lambda table: read_choice(SCHEDULES, table, face=("__call__", "clauses"))),
    PlainSerializer(lambda schedule: write_choice(SCHEDULES, schedule), return_type=Table),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """What is drawn beside the problems, what is scored, how the weights move."""

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
    dropout: float = Field(default=0, ge=0, lt=1)
    """Share of what a layer adds to the stream that is dropped, component by component."""

    score: Literal["second-half", "all"] = "second-half"
    """The loops whose predictions are scored."""
    before_due: Literal["scored", "skipped", "unknown"] = "scored"
    """What is wanted of an answer after loops by which the news that it needs cannot have come: the answer all the same,
    nothing, or the token that says "not known yet"."""
    label_smoothing: float = Field(default=0, ge=0, lt=1)

    schedule: ScheduleField = Field(default_factory=Cosine)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    validate_every: int = Field(default=0, ge=0)
    """Steps between two looks at held-out problems during training; 0: none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_loops > self.max_loops:
            raise ValueError(f"`min_loops` ({self.min_loops}) must not exceed `max_loops` ({self.max_loops})")
        if self.before_due == "unknown" and self.score != "all":
            raise ValueError("`before_due = 'unknown'` says what is right after every loop: it needs `score = 'all'`")
        return self

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that training exercises."""
        names = ["loop-count", "answer-loss", "weight-decay", "deterministic", "keyed-randomness"]
        names += ["second-half"] if self.score == "second-half" else ["all-loops"]
        names += {"scored": [], "skipped": ["due"], "unknown": ["due", "not-known-yet"]}[self.before_due]
        names += ["restarts"] if self.restart_share > 0 else []
        names += ["state-noise"] if self.state_noise > 0 else []
        names += ["dropout"] if self.dropout > 0 else []
        names += ["label-smoothing"] if self.label_smoothing > 0 else []
        return (*(f"training.{name}" for name in names), *self.schedule.clauses())


@dataclass(frozen=True, kw_only=True, config=STRICT)
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
