"""A flow: every tensor that one pass of a body makes, in order, with the operation that made it and what it was made of.

A mode of PyTorch's dispatcher sees each operation below autograd, hooks say which module it ran in; no body is asked to help.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from looplm.errors import InputError
from looplm.loop.halting import HaltingRule
from looplm.models.body import Body
from looplm.task import Task
from looplm.think.answer import respond

SCHEMA = 1
"""Version of the layout of `Flow.as_json`."""
GIVEN = ("tokens", "parameter", "buffer", "given")
"""What a tensor may be that the pass did not make; the last is a tensor that is none of the others."""
MOST_TOKENS = 64
"""Of a text whose flow is recorded: all tensors of the pass are held at once."""


@dataclass(frozen=True)
class Made:
    """One tensor."""

    number: int
    """From 1, in the order in which tensors came up."""
    name: str
    """Of a parameter or buffer, its name; of what is made, the module call and the operation, such as `encoder.0 / relu`."""
    operation: str
    """Of PyTorch, such as `mm`; of `GIVEN` for what the pass did not make."""
    call: tuple[str, ...]
    """Module calls that were open, outermost first, such as `("decoder.0", "decoder.0.cross")`; a second call ends in `#2`."""
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    """Its numbers times the size of one."""
    view: bool
    """Whether it shares its memory with an earlier tensor: a reshape, a slice, a change in place."""
    inputs: tuple[int, ...]
    """Numbers of the tensors that it was made of."""


@dataclass(frozen=True)
class Step:
    """One module call directly under the body, or `(body)` for what the body does between them."""

    call: str
    reads: tuple[str, ...]
    """Earlier steps that made what it reads, as far as other modules are concerned; `tokens` for the ids."""
    output: tuple[int, ...]
    """Shape of the last tensor of its own that is read outside of it; if none is, of its last."""
    tensors: int
    bytes: int
    """Of new memory that it fills."""
    parameters: int
    """Numbers in the parameters that it reads."""


@dataclass(frozen=True)
class Flow:
    """What one pass made."""

    text: str
    answer: str
    body: str
    tokens: tuple[str, ...]
    made: tuple[Made, ...]

    def steps(self, depth: int = 1) -> list[Step]:
        """The pass by its module calls, those `depth` deep and those above that hold no deeper one, in order.

        Spec: [architecture.flow][].
        """
        within = {made.call[:above] for made in self.made for above in range(1, min(len(made.call), depth))}
        calls = {made.number: () if made.call[:depth] in within else made.call[:depth] for made in self.made}
        origin: dict[int, frozenset[str]] = {}
        rows: dict[str, list[Made]] = {}
        reads: dict[str, dict[str, None]] = {}
        for made in self.made:
            known: frozenset[str] = frozenset().union(*(origin[number] for number in made.inputs))
            if made.operation == "tokens":
                known = frozenset({"tokens"})
            if not calls[made.number]:  # given, or made between the calls that are shown: what it was made of counts
                origin[made.number] = known
                continue
            call = calls[made.number][-1]
            origin[made.number] = frozenset({call})
            rows.setdefault(call, []).append(made)
            reads.setdefault(call, {}).update(dict.fromkeys(sorted(known - {call})))
        by_number = {made.number: made for made in self.made}
        leaves = {number for made in self.made for number in made.inputs if calls[number] != calls[made.number]}
        return [
            Step(
                call,
                tuple(reads[call]),
                next((each.shape for each in reversed(own) if each.number in leaves), own[-1].shape),
                len(own),
                sum(each.bytes for each in own if not each.view),
                _numbers({i: by_number[i] for each in own for i in each.inputs if by_number[i].operation == "parameter"}),
            )
            for call, own in rows.items()
        ]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        made = [vars(each) for each in self.made]
        return {"schema": SCHEMA, **{name: value for name, value in vars(self).items() if name != "made"}, "made": made}


def _numbers(made: Mapping[int, Made]) -> int:
    return sum(torch.Size(each.shape).numel() for each in made.values())


@torch.no_grad()
def flow_of_text(model: Body, task: Task, text: str, halting: HaltingRule) -> Flow:
    """Answer a question, then read the whole text once more and keep every tensor of that reading.

    Args:
        model: trained on the task, or not at all.
        task: what is asked.
        text: the question, as a user writes it.
        halting: when a token stops.

    Raises:
        InputError: if it is no question of the task, or has more than `MOST_TOKENS` tokens.

    Spec: [architecture.flow][].
    """
    prompt, symbols = task.prompt(text), task.vocabulary.symbols
    (response,) = respond(model, task, [text], halting)
    ids = prompt.tokens if prompt.slots else prompt.tokens + response.tokens[:-1]
    if len(ids) > MOST_TOKENS:
        raise InputError(f"a flow is recorded of at most {MOST_TOKENS} tokens: got {len(ids)}; give a shorter text.")
    first = len(ids) - prompt.slots if prompt.slots else len(prompt.tokens) - 1
    tokens = torch.tensor([ids], device=model.device)
    answer = (torch.arange(len(ids), device=tokens.device) >= first)[None]
    made = record(model, tokens, lambda: model.think(tokens, halting, answer=answer))
    return Flow(text, response.answer, type(model).__name__, tuple(symbols[id] for id in ids), made)


def record(model: nn.Module, tokens: Tensor, run: Any) -> tuple[Made, ...]:
    """Every tensor that `run()` makes, where `model` reads `tokens`; what `run` gives is as it would be without.

    Spec: [architecture.flow][].
    """
    given = {id(tensor): ("parameter", name) for name, tensor in model.named_parameters()}
    given |= {id(tensor): ("buffer", name) for name, tensor in model.named_buffers()}
    log = _Log(given | {id(tokens): ("tokens", "tokens")})
    with _calls(model, log), _Recorder(log):
        run()
    return tuple(log.made)


_SAME = ("detach", "alias", "lift_fresh")
"""Operations that give the tensor that they read: they make none."""


@dataclass
class _Log:
    given: dict[int, tuple[str, str]]
    """What tensors that the pass is given are, and their names, by their identity."""
    open: list[str] = field(default_factory=list)
    """Module calls."""
    calls: dict[str, int] = field(default_factory=dict)
    made: list[Made] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    held: list[Tensor] = field(default_factory=list)
    """All of them, so that no identity is used twice."""
    memory: set[int] = field(default_factory=set)

    def number(self, tensor: Tensor) -> int:
        """Of a tensor that is read; one that nobody made was given."""
        if id(tensor) not in self.numbers:
            kind, name = self.given.get(id(tensor), ("given", "given"))
            self.add(tensor, kind, (), name)
        return self.numbers[id(tensor)]

    def alias(self, tensor: Tensor, number: int) -> None:
        """Another handle of the tensor of this number."""
        self.held.append(tensor)
        self.numbers[id(tensor)] = number

    def add(self, tensor: Tensor, operation: str, inputs: tuple[int, ...], name: str) -> None:
        """One more."""
        place = tensor.untyped_storage().data_ptr()
        view = place in self.memory and tensor.numel() > 0
        self.memory.add(place)
        self.held.append(tensor)
        number = self.numbers[id(tensor)] = len(self.made) + 1
        size = tensor.numel() * tensor.element_size()
        dtype = str(tensor.dtype).removeprefix("torch.")
        call = tuple(self.open) if operation not in GIVEN else ()
        self.made.append(Made(number, name, operation, call, tuple(tensor.shape), dtype, size, view, inputs))


class _Recorder(TorchDispatchMode):
    def __init__(self, log: _Log) -> None:
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [each for each in tree_leaves((args, kwargs or {})) if isinstance(each, Tensor)]
        inputs = tuple(dict.fromkeys(self.log.number(each) for each in read))
        given = func(*args, **(kwargs or {}))
        operation = func.overloadpacket.__name__.strip("_")
        if operation in _SAME:
            self.log.alias(given, inputs[0])
            return given
        where = self.log.open[-1] if self.log.open else "(body)"
        for tensor in tree_leaves(given):
            if isinstance(tensor, Tensor):
                self.log.add(tensor, operation, inputs, f"{where} / {operation}")
        return given


@contextmanager
def _calls(model: nn.Module, log: _Log) -> Iterator[None]:
    """Keep the log's open calls right while the model runs."""

    def enter(name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            times = log.calls[name] = log.calls.get(name, 0) + 1
            log.open.append(name if times == 1 else f"{name}#{times}")

        return hook

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        log.open.pop()

    named = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_pre_hook(enter(name)) for name, module in named]
    handles += [module.register_forward_hook(leave, always_call=True) for _, module in named]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
