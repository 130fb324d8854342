"""A looped model computed from the spec's own functions: one row, one token, one loop at a time.

Slow and plain on purpose. It takes only the weights from the model under test.
"""

from dataclasses import dataclass, field
from functools import partial

import torch
from strategies import Scattered, scattered
from torch import Tensor

from looplm.loop.halting import Bounded, ByRole, HaltingRule
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.gate import Gate
from looplm.loop.halting.prefix_stability import PrefixStability
from looplm.loop.halting.state_change import StateChange
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.loop.work import Offer
from looplm.models.looped import LoopLM
from looplm.spec import oracle

architecture, injection, halting = oracle("architecture"), oracle("injection"), oracle("halting")

KeysValues = list[tuple[Tensor, Tensor]]
"""Per layer: keys and values [H, K]."""


@dataclass
class Token:
    """What one token went through."""

    states: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    halt_probs: list[float] = field(default_factory=list)
    offers: list[KeysValues] = field(default_factory=list)

    @property
    def loops_taken(self) -> int:
        return len(self.states)

    @property
    def guesses(self) -> list[int]:
        return [architecture.guess(logits.tolist()) for logits in self.logits]

    @property
    def confidences(self) -> list[float]:
        return [architecture.confidence(logits.tolist()) for logits in self.logits]


def is_ready(rule: Bounded, token: Token, waited_for: int) -> list[bool]:
    """After each loop so far, in the words of the spec."""
    ready: list[bool]
    if isinstance(rule, Scattered):
        ready = scattered(token.guesses)
    elif isinstance(rule, Confidence) and rule.unknown_id is not None:
        ready = halting.known(token.guesses, token.confidences, rule.threshold, rule.unknown_id)
    elif isinstance(rule, Confidence):
        ready = halting.confidence(token.confidences, rule.threshold)
    elif isinstance(rule, Gate):
        ready = halting.gate(token.halt_probs, rule.threshold)
    elif isinstance(rule, TwoEqualArgmaxes):
        ready = halting.two_equal_argmaxes(token.guesses)
    elif isinstance(rule, StateChange):
        ready = halting.state_change(token.changes, rule.epsilon)
    elif isinstance(rule, PrefixStability):
        settings = (rule.threshold, rule.epsilon, waited_for)
        return list(halting.prefix_stability(token.guesses, token.confidences, token.changes, *settings))
    else:
        assert type(rule) is Fixed
        ready = halting.fixed(token.loops_taken)
    return halting.in_order(ready, waited_for) if rule.in_order else ready


class OracleModel:
    """Reads a text token by token, as the clauses say."""

    def __init__(self, model: LoopLM, offer: Offer = "publish") -> None:
        self.config, self.offer = model.config, offer
        self.weights = model.state_dict()
        self.head_dim = self.config.width // self.config.heads
        self.kv_heads = self.config.kv_heads or self.config.heads

    def read(self, tokens: list[int], rule: HaltingRule, answer: list[bool] | None = None) -> list[Token]:
        """Every token in order, each under the rule of its role."""
        answer = answer or [True] * len(tokens)
        done: list[Token] = []
        for t in range(len(tokens)):
            waited_for = max((done[i].loops_taken for i in range(t) if answer[i]), default=0)
            done.append(self.read_next(tokens[: t + 1], done, rule, answer[t], waited_for))
        return done

    def read_next(
        self, tokens: list[int], earlier: list[Token], rule: HaltingRule, answer: bool = True, waited_for: int = 0
    ) -> Token:
        """The last of the tokens, after the earlier ones have been read."""
        own = (rule.answer if answer else rule.prompt) if isinstance(rule, ByRole) else rule
        assert isinstance(own, Bounded)
        waited_for = waited_for if answer else 0  # only answer tokens wait for others
        token = Token()
        position = architecture.positions([True] * len(tokens))[-1]
        learned = self.weights["positions.table.weight"] if self.config.positions == "learned" else None
        x0 = architecture.embedded(tokens[-1], position, self.weights["embedding.weight"], learned)
        h, halted = torch.zeros_like(x0), False
        for l in range(1, rule.max_loops + 2):
            stream, offer = self._block(self._enter(h, x0, l), tokens, earlier, l)
            token.offers.append(offer)
            if halted and self.offer in ("publish", "carry"):
                return token  # the pass of loop s + 1 was for its keys and values only
            before, after = h, self._norm("state_norm", stream) if self.config.state_norm else stream
            if not halted or self.offer == "no-freeze":
                h = after
            if halted:
                continue
            token.states.append(h)
            token.changes.append(halting.change(h, before))
            if self.config.gate:
                signal = None if self.config.loop_signal == "none" else self._signal(l)
                weight, bias = self.weights["gate.weight"][0], float(self.weights["gate.bias"][0])
                token.halt_probs.append(halting.halt_prob(h, signal, weight, bias))
            token.logits.append(self._norm("head_norm", h) @ self.weights["embedding.weight"].T)
            ready = is_ready(own, token, waited_for) + [False] * own.max_loops
            halted = halting.loops_taken(ready, own.min_loops, own.max_loops) == l
        return token

    def _entry(self, reader_loop: int, s: int) -> int:
        entries = {"publish": halting.entry, "carry": halting.carried_entry}
        return int(entries[self.offer](reader_loop, s)) if self.offer in entries else reader_loop

    def _enter(self, h: Tensor, x0: Tensor, l: int) -> Tensor:
        u: Tensor = {"every": injection.every, "first": injection.first}[self.config.injection](h, x0, l)
        return u if self.config.loop_signal == "none" else u + self._signal(l)

    def _signal(self, l: int) -> Tensor:
        if self.config.loop_signal == "learned":
            learned: Tensor = architecture.learned_signal(l, self.weights["loop_signal.table"])
            return learned
        signal = architecture.sinusoidal_signal(l, self.config.loop_signal_loops, self.config.width)
        return torch.tensor(signal, dtype=torch.float64)

    def _block(self, x: Tensor, tokens: list[int], earlier: list[Token], l: int) -> tuple[Tensor, KeysValues]:
        offer: KeysValues = []
        for i in range(self.config.layers):
            name = f"block.layers.{i}"

            def attention(normed: Tensor, i: int = i, name: str = f"{name}.attention") -> Tensor:
                queries, keys, values = self._project(name, normed, len(tokens) - 1)
                offer.append((keys, values))
                seen = [past.offers[self._entry(l, past.loops_taken) - 1][i] for past in earlier] + [(keys, values)]
                read = []
                for head in range(self.config.heads):
                    shared = architecture.kv_head(head, self.config.heads, self.kv_heads)
                    k = torch.stack([kv[0][shared] for kv in seen])
                    v = torch.stack([kv[1][shared] for kv in seen])
                    read.append(architecture.attend(queries[head][None], k, v, self._score(tokens, head))[0])
                return torch.cat(read) @ self.weights[f"{name}.out.weight"].T

            norms = (partial(self._norm, f"{name}.{norm}") for norm in ("attention_norm", "mlp_norm"))
            x = architecture.layer(x, attention, partial(self._mlp, f"{name}.mlp"), *norms)
        return x, offer

    def _project(self, name: str, x: Tensor, position: int) -> tuple[Tensor, Tensor, Tensor]:
        qkv = torch.stack(architecture.heads(self.weights[f"{name}.qkv.weight"] @ x, self.head_dim))
        q, k, v = qkv.split([self.config.heads, self.kv_heads, self.kv_heads])
        if self.config.positions == "rope":
            q, k = (
                torch.tensor([architecture.rope(row, position) for row in each.tolist()], dtype=torch.float64)
                for each in (q, k)
            )
        return q, k, v

    def _score(self, tokens: list[int], head: int) -> Tensor:
        score = torch.zeros(1, len(tokens), dtype=torch.float64)
        if self.config.positions != "place":
            return score
        placed = architecture.in_runs(tokens, self.config.place_ids)
        place, run = architecture.places(placed), architecture.runs(placed)
        for s in range(len(tokens)):
            number = architecture.bucket(place[-1], place[s], placed[s], run[s] == run[-1], self.config.place_reach)
            score[0, s] = 10 * self.weights["positions.table"][number, head]
            window = self.config.place_window
            if window is not None and not architecture.in_window(place[-1], place[s], placed[s], window):
                score[0, s] = -torch.inf
            if self.config.place_strict and not architecture.seen_strictly(placed[-1], placed[s]):
                score[0, s] = -torch.inf
        return score

    def _norm(self, name: str, x: Tensor) -> Tensor:
        gain = self.weights[f"{name}.weight"]
        normed: Tensor
        if self.config.norm == "rms":
            normed = architecture.rms_norm(x, gain)
        else:
            normed = architecture.layer_norm(x, gain, self.weights[f"{name}.bias"])
        return normed

    def _mlp(self, name: str, x: Tensor) -> Tensor:
        down = self.weights[f"{name}.down.weight"]
        mixed: Tensor
        if self.config.mlp == "gelu":
            mixed = architecture.gelu_mlp(x, self.weights[f"{name}.up.weight"], down)
        else:
            gate, up = self.weights[f"{name}.gate_and_up.weight"].chunk(2)
            mixed = architecture.swiglu_mlp(x, gate, up, down)
        return mixed
