"""The Connection Transformer: fixed slots, a state for each, and one matrix that connects them.

X⁰ = norm(q + read(H + q; facts))                          [B, N, D]
X  = norm(C·H + (I + C)·X + reread(H + X; facts))          as often as there are steps
answer = q + attention(q; H + X)                           [B, D]

The slots H are never trained. In the variant `pure` nothing is read again after X⁰. A row of tokens is a story: sentences,
each closed by an end mark; the last one is the question, and the others are the facts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from looplm.layers.sentences import refuse_long, sentences_of
from looplm.layers.slots import Reading, bounded
from looplm.models.body import Noise, State, StoryBody
from looplm.settings import STRICT
from looplm.shapes import Bool, Float, Int

UNREAD = 1.001
"""What has been read of a fact is taken from this, so that one read whole keeps a small share."""
_NOT_THERE = -1e4
"""Logit of a fact that a row does not have."""


@checked(frozen=True, kw_only=True, config=STRICT)
class ConnectionConfig:
    """Sizes and choices of a Connection Transformer."""

    body: Literal["connection"] = "connection"
    vocab_size: int = Field(ge=2)
    pad_id: int = Field(ge=0)
    end_ids: tuple[int, ...] = Field(min_length=1)
    """Ids of tokens that end a sentence."""
    width: int = Field(default=64, ge=2)
    slots: int = Field(default=16, ge=1)
    heads: int = Field(default=1, ge=1)
    """Of both readings."""
    answer_heads: int = Field(default=4, ge=1)
    max_words: int = Field(default=8, ge=1)
    """Longest sentence, its end mark not counted."""
    max_facts: int = Field(default=16, ge=1)
    """Of a story."""

    variant: Literal["pure", "reread"] = "reread"
    """Whether the slots read the facts again at every step."""
    connection: Literal["learned", "frozen", "zero"] = "learned"
    """The matrix C: learned; drawn, scaled to the bound and never trained; or none. The latter two are controls."""
    norm: Literal["layer", "none"] = "layer"
    """Of the state, at the start and after each step."""
    avoid: float = Field(default=24.0, ge=0)
    """How strongly a slot avoids the facts that it has read, when it reads again; 0: not at all."""
    step_signals: int = Field(default=2, ge=1)
    """Steps with a learned vector of their own in the queries of re-reading; later steps take the last one."""
    centred: bool = True
    """The mean of a story's facts is taken from each, so that what all of them say takes no part in a comparison."""

    orthogonal_words: bool = True
    """Word vectors start orthogonal: two words are alike only if they are the same."""
    compare_gain: float = Field(default=3.0, gt=0)
    """Queries and keys of both readings start as this times the same orthogonal matrix."""
    reread_gain: float = Field(default=3.0, gt=0)
    """What is read again starts so many times as strong."""
    place_std: float = Field(default=0.25, ge=0)
    time_std: float = Field(default=0.3, ge=0)
    slot_std: float = Field(default=0.1, gt=0)
    connection_std: float = Field(default=0.02, gt=0)
    compare_rate: float = Field(default=0.03, gt=0)
    """Learning rate of the queries and keys of both readings, as a multiple of the schedule's."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("heads", "answer_heads"):
            if self.width % getattr(self, name):
                raise ValueError(f"`width` must be a multiple of `{name}`: got {self.width} and {getattr(self, name)}")
        if self.orthogonal_words and self.vocab_size > self.width:
            raise ValueError(
                f"`orthogonal_words` needs a `width` of at least the {self.vocab_size} tokens: got {self.width}; "
                "make it wider, or set `orthogonal_words = false`"
            )
        return self

    def check(self, tokens: Annotated[Tensor, Int("B T")]) -> None:
        """Refuse rows of tokens that are no stories, or too long for this body.

        Raises:
            InputError: with what is too long, and the setting that allows it.
        """
        refuse_long(sentences_of(tokens, self.pad_id, self.end_ids), self.max_facts, self.max_words)

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that a body of these settings exercises."""
        names = ["sentences", "facts", "reading", "slots", "first-reading", "step", "norm", "bound", "answer", "independent"]
        names += ["reread"] if self.variant == "reread" else []
        names += ["avoid"] if self.variant == "reread" and self.avoid else []
        return tuple(f"connection.{name}" for name in names)


@dataclass(frozen=True)
class Story:
    """What a row says, as vectors."""

    facts: Annotated[Tensor, Float("B M D")]
    there: Annotated[Tensor, Bool("B M")]
    """False where a row has fewer facts than others."""
    question: Annotated[Tensor, Float("B D")]


@dataclass(frozen=True)
class Slots:
    """The slots after a step."""

    x: Annotated[Tensor, Float("B N D")]
    """The state."""
    reading: Annotated[Tensor, Float("B N M")]
    """How much of each fact every slot has just read: 0 where it read nothing."""


class Connection(StoryBody):
    """A Connection Transformer.

    Source: YeoJune/conn_trans, the plan for an RTX 4090: slots H, a state X, one matrix C. We differ: the question enters
    through the queries; in the variant `reread` the slots read the facts again at every step.
    Spec: [connection.step][], [connection.answer][], [connection.independent][].
    """

    settings = ConnectionConfig
    config: ConnectionConfig

    def __init__(self, config: ConnectionConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.words = nn.Embedding(config.vocab_size, width)
        if config.orthogonal_words:
            with torch.no_grad():
                self.words.weight.copy_(nn.init.orthogonal_(torch.empty(config.vocab_size, width)) * width**0.5)
        self.places = nn.Parameter(1 + config.place_std * torch.randn(2, config.max_words, width))
        self.times = nn.Parameter(config.time_std * torch.randn(config.max_facts, width))
        self.asking = nn.Parameter(0.5 * torch.randn(width))
        self.register_buffer("slots", config.slot_std * torch.randn(config.slots, width))
        drawn = config.connection_std * torch.randn(config.slots, config.slots)
        if config.connection == "learned":
            self.connection = nn.Parameter(drawn)
        else:
            drawn = drawn / torch.linalg.matrix_norm(drawn, 2) if config.connection == "frozen" else torch.zeros_like(drawn)
            self.register_buffer("connection", drawn)
        self.read = Reading(width, config.heads, config.compare_gain)
        self.read_answer = Reading(width, config.answer_heads, gain=2.0)
        names = ["question", "asked", "facts", "answered", "out"]
        if config.variant == "reread":
            self.reread = Reading(width, config.heads, config.compare_gain, config.reread_gain)
            self.signals = nn.Parameter(0.1 * torch.randn(config.step_signals, width))
            names += ["again", "facts_again"]
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in names})
        if config.norm == "layer":
            self.norms.update({name: nn.LayerNorm(width) for name in ("first", "step")})
        self.out = nn.Linear(width, config.vocab_size)

    slots: Tensor
    connection: Tensor

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.words.weight.device

    def _readings(self) -> list[Reading]:
        return [self.read, *([self.reread] if self.config.variant == "reread" else [])]

    def decayed(self) -> list[nn.Parameter]:
        """Words, projections and C; not places, times or norms.

        Spec: [training.weight-decay][].
        """
        linear = [module.get_parameter("weight") for module in self.modules() if isinstance(module, nn.Linear)]
        learned = [self.get_parameter("connection")] if self.config.connection == "learned" else []
        return [self.words.get_parameter("weight"), *linear, *learned]

    def rates(self) -> dict[nn.Parameter, float]:
        """Queries and keys of both readings learn at a rate of their own.

        Spec: [training.rates][].
        """
        slow = [layer.get_parameter("weight") for each in self._readings() for layer in (each.query, each.key)]
        return dict.fromkeys(slow, self.config.compare_rate)

    def story(self, tokens: Annotated[Tensor, Int("B T")]) -> Story:
        """Facts and question of each row.

        Raises:
            InputError: if a row is no story, or too long.

        Spec: [connection.sentences][], [connection.facts][].
        """
        found = sentences_of(tokens, self.config.pad_id, self.config.end_ids)
        refuse_long(found, self.config.max_facts, self.config.max_words)
        last = found.count - 1
        asks = found.number == last[:, None]
        masks = self.places[asks.long(), found.place.clamp(min=0)]  # [B, T, D]
        words = self.words(tokens) * masks * (found.place >= 0)[..., None] / 2
        number = torch.arange(int(found.count.max()), device=tokens.device)
        of = (found.number[:, None] == number[:, None]).to(words.dtype)  # [B, M + 1, T]
        sentences = of @ words
        there = number < last[:, None]
        newest_first = (last[:, None] - 1 - number).clamp(min=0)
        facts = sentences + self.times[newest_first]
        if self.config.centred:
            mean = (facts * there[..., None]).sum(1) / there.sum(1, keepdim=True)
            facts = facts - mean[:, None]
        question = sentences[torch.arange(len(tokens), device=tokens.device), last] + self.asking
        facts, there = facts[:, :-1], there[:, :-1]
        return Story(torch.where(there[..., None], facts, 0), there, question)

    def steps(self, story: Story, num_loops: int) -> Iterator[Slots]:
        """The slots after the first reading, then after each step.

        Spec: [connection.slots][], [connection.first-reading][], [connection.step][], [connection.reread][],
        [connection.avoid][].
        """
        config, norms, slots = self.config, self.norms, self.slots
        q = story.question[:, None]
        missing = torch.where(story.there, 0.0, _NOT_THERE)[:, None].to(q.dtype)  # [B, 1, M]
        read, reading = self.read(norms["asked"](slots + norms["question"](q)), norms["facts"](story.facts), missing)
        x, seen = self._normed("first", q + read), reading
        yield Slots(x, reading)
        connection = self.held()
        for t in range(num_loops):
            z = connection @ slots + x + connection @ x
            reading = torch.zeros_like(reading)
            if config.variant == "reread":
                asking = norms["again"](slots + x + self.signals[min(t, config.step_signals - 1)])
                avoided = config.avoid * (UNREAD - seen.clamp(max=1.0)).log()
                read, reading = self.reread(asking, norms["facts_again"](story.facts), missing + avoided)
                z, seen = z + read, seen + reading
            x = self._normed("step", z)
            yield Slots(x, reading)

    def held(self) -> Annotated[Tensor, Float("N N")]:
        """C within the bound; one that is not learned was drawn there.

        Spec: [connection.bound][].
        """
        return bounded(self.connection) if self.config.connection == "learned" else self.connection

    def readout(self, story: Story, x: Annotated[Tensor, Float("B N D")]) -> Annotated[Tensor, Float("B D")]:
        """What the question reads from the slots.

        Spec: [connection.answer][].
        """
        q = self.norms["question"](story.question)[:, None]
        read, _ = self.read_answer(q, self.norms["answered"](self.slots + x))
        return self.norms["out"](q + read)[:, 0]

    def states(
        self, tokens: Annotated[Tensor, Int("B T")], num_loops: int, start: State | None = None, noise: Noise | None = None
    ) -> Iterator[Tensor]:
        """What the row's question reads after each step, the same at every token of it; no start and no noise are known."""
        assert start is None and noise is None, "the recipe has asked"
        story = self.story(tokens)
        slots = self.steps(story, num_loops)
        next(slots)
        for after in slots:
            yield self.readout(story, after.x)[:, None].expand(-1, tokens.shape[1], -1)

    def logits(self, h: Annotated[Tensor, Float("... D")]) -> Annotated[Tensor, Float("... V")]:
        """Logits of each answer."""
        scores: Tensor = self.out(h)
        return scores

    def _normed(self, name: str, x: Tensor) -> Tensor:
        """Spec: [connection.norm][]."""
        return self.norms[name](x) if self.config.norm == "layer" else x


def _with_connection(model: Connection, change: Callable[[Tensor], Tensor]) -> Connection:
    """A copy whose matrix C is made of the model's own, which is within the bound."""
    copy = Connection(replace(model.config, connection="frozen")).to(model.device, model.slots.dtype)
    copy.load_state_dict(model.state_dict())
    copy.connection = change(model.held().detach())
    return copy.train(model.training)


def _drawn(like: Tensor) -> Tensor:
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    return drawn / torch.linalg.matrix_norm(drawn, 2)


def _shuffled(connection: Tensor) -> Tensor:
    order = torch.randperm(connection.numel(), generator=torch.Generator().manual_seed(0))
    return connection.flatten()[order.to(connection.device)].view_as(connection)


def _without_rereading(model: Connection) -> Connection:
    copy = _with_connection(model, lambda connection: connection)
    if copy.config.variant == "reread":
        nn.init.zeros_(copy.reread.out.weight)
    return copy


ABLATIONS: dict[str, Callable[[Connection], Connection]] = {
    "no-connection": lambda model: _with_connection(model, torch.zeros_like),
    "shuffled-connection": lambda model: _with_connection(model, _shuffled),
    "random-connection": lambda model: _with_connection(model, _drawn),
    "no-rereading": _without_rereading,
}
"""Copies of a trained model with a part taken away: C set to 0, its entries shuffled, a drawn C at the bound in its place, or
nothing read again.

Spec: [connection.ablations][].
"""

CHOICE = Connection
