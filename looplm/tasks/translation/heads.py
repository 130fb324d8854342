"""What the heads of a trained encoder-decoder read, beside a shuffled control, and what is lost without each of them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.evaluate.scores import solved
from looplm.layers.cross_attention import CrossAttention
from looplm.models.seq2seq import Seq2Seq
from looplm.runs.checkpoint import Trained
from looplm.shapes import Bool, Float, Int
from looplm.task import TASKS, Batch
from looplm.tasks.translation import Translation, collate
from looplm.tasks.translation.alignment import ROLES, Places, pieces_of, places_of
from looplm.tasks.translation.grammar import Sentence

SCHEMA = 1
"""Version of the layout of `measure_heads`."""
CLAUSES = 2
"""Of the sentences that are read."""


@dataclass(frozen=True)
class Relation:
    """Pairs of a token that asks and a token that may answer, in some sentences."""

    kind: str
    """Which attention it is asked of: `encoder`, `decoder` or `cross`."""
    name: str
    row: Annotated[Tensor, Int("P")]
    """Of each pair, the sentence."""
    asks: Annotated[Tensor, Int("P")]
    """The place among the tokens that ask, from 0."""
    answers: Annotated[Tensor, Int("P")]
    """The place among those that are read."""


@dataclass(frozen=True)
class Head:
    """One head of one attention."""

    kind: str
    layer: int
    """From 0."""
    head: int


def relations_of(sentences: Sequence[Sentence]) -> list[Relation]:
    """What is asked: in the source, who belongs to whom; between the sides, which word a syllable comes from.

    The decoder's token of the end mark predicts the first syllable, and each syllable the one after it.

    Spec: [translation.alignment][], [translation.heads][].
    """
    pairs: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for row, sentence in enumerate(sentences):
        for name, asks, answers in _in_source(places_of(sentence)):
            pairs.setdefault(("encoder", name), []).append((row, asks, answers))
        place = 0
        for piece in pieces_of(sentence):
            for n in range(len(piece.text)):
                if piece.word is not None:
                    pairs.setdefault(("cross", piece.role), []).append((row, place + n, piece.word))
                if place + n:
                    pairs.setdefault(("decoder", "syllable before"), []).append((row, place + n, place + n - 1))
            if piece.role == "particle":
                pairs.setdefault(("decoder", "particle to its noun"), []).append((row, place, place))
            place += len(piece.text)
    return [
        Relation(kind, name, *torch.tensor(found).T)
        for (kind, name), found in sorted(pairs.items(), key=lambda item: _order(*item[0]))
    ]


def _order(kind: str, name: str) -> tuple[int, int, str]:
    return ("encoder", "cross", "decoder").index(kind), ROLES.index(name) if name in ROLES else 0, name


def _in_source(at: Places) -> Iterator[tuple[str, int, int]]:
    yield "verb to its object", at.verb, at.object
    yield "verb to its subject", at.verb, at.subject
    yield "object to its verb", at.object, at.verb
    for adjective, noun in ((at.subject_adjective, at.subject), (at.object_adjective, at.object)):
        if adjective is not None:
            yield "adjective to its noun", adjective, noun
    if at.relative_verb is not None:
        yield "verb after that to its object", at.relative_verb, at.object


@torch.no_grad()
def measure_heads(trained: Trained, count: int, seed: int) -> dict[str, Any]:
    """Each head's share of each relation, its control, and what is wrong without it.

    Args:
        trained: an encoder-decoder of the task translation.
        count: sentences of two clauses with pairs that training never saw.
        seed: of the sentences.

    Returns:
        `relations`: of each, its pairs and for each head and loop `share`, the mean attention from the token that asks to
        the one that answers, and `shuffled`, to the place where another sentence has its answer, None if no other
        has one. `without`: for no
        head and for each one, the sentences right and, of the syllables of each role, the share that is wrong.

    Raises:
        InputError: if the model is another body's, or of another task.

    Spec: [translation.heads][].
    """
    model, task = read_heads_of(trained)
    sentences = task.sentences("unseen", CLAUSES, count, seed)
    batch, loops = collate(sentences), trained.recipe.halting.max_loops
    with attention_of(model) as seen:
        whole = _errors(model, batch, sentences, loops)
    others = torch.randperm(count, generator=Draw(seed, "other sentences").generator())
    relations = [
        {"kind": each.kind, "name": each.name, "pairs": len(each.row), "heads": list(_shares(each, seen, others))}
        for each in relations_of(sentences)
    ]
    without = [{"kind": "none", "layer": 0, "head": 0} | whole]
    for head in heads_of(model):
        with removed(model, head):
            without.append(vars(head) | _errors(model, batch, sentences, loops))
    return {"schema": SCHEMA, "seed": seed, "n": count, "relations": relations, "without": without}


def read_heads_of(trained: Trained) -> tuple[Seq2Seq, Translation]:
    """The model and its task.

    Raises:
        InputError: if the model is another body's, or of another task.
    """
    model, task = trained.model, trained.recipe.task
    if not isinstance(task, Translation) or not isinstance(model, Seq2Seq):
        what = f"a {type(model).__name__} of the task {TASKS.name_of(type(task))}"
        raise InputError(f"heads are read of an encoder-decoder of the task translation: got {what}.")
    return model, task


def attentions(model: Seq2Seq) -> Iterator[tuple[str, int, CrossAttention]]:
    """Every attention with its kind and layer."""
    for kind, stack, name in (
        ("encoder", model.encoder, "attention"),
        ("decoder", model.decoder, "attention"),
        ("cross", model.decoder, "cross"),
    ):
        for layer, block in enumerate(stack):
            module = getattr(block, name)
            assert isinstance(module, CrossAttention)
            yield kind, layer, module


def heads_of(model: Seq2Seq) -> list[Head]:
    """Every head."""
    return [Head(kind, layer, head) for kind, layer, module in attentions(model) for head in range(module.heads)]


@contextmanager
def attention_of(model: Seq2Seq) -> Iterator[dict[tuple[str, int], list[Tensor]]]:
    """While it is open, each pass adds what each attention reads, [B, H, T, S], by kind and layer, one for each loop."""
    seen: dict[tuple[str, int], list[Tensor]] = {}

    def keep(kind: str, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            assert isinstance(module, CrossAttention)
            seen.setdefault((kind, layer), []).append(module.weights(*args))

        return hook

    handles = [module.register_forward_pre_hook(keep(kind, layer)) for kind, layer, module in attentions(model)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def removed(model: Seq2Seq, head: Head) -> Iterator[None]:
    """While it is open, what this head reads is zero, at every loop.

    Spec: [translation.heads][].
    """
    (module,) = (module for kind, layer, module in attentions(model) if (kind, layer) == (head.kind, head.layer))
    size = module.out.in_features // module.heads
    part = slice(head.head * size, (head.head + 1) * size)

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        read = args[0].clone()
        read[..., part] = 0
        return (read,)

    handle = module.out.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _shares(
    relation: Relation,
    seen: dict[tuple[str, int], list[Annotated[Tensor, Float("B H T S")]]],
    others: Annotated[Tensor, Int("B")],
) -> Iterator[dict[str, Any]]:
    wrong = _answers_of(relation, others)
    known = wrong >= 0
    kept = known if bool(known.any()) else torch.ones_like(known)
    for (kind, layer), loops in sorted(seen.items()):
        if kind != relation.kind:
            continue
        for loop, read in enumerate(loops):
            share = read[relation.row[kept], :, relation.asks[kept], relation.answers[kept]].mean(0)
            width = read.shape[3] - 1
            at = relation.row[known], relation.asks[known], wrong[known].clamp(max=width)
            shuffled = read[at[0], :, at[1], at[2]].mean(0)  # NaN where no other sentence has the relation
            for head, (own, other) in enumerate(zip(share.tolist(), shuffled.tolist(), strict=True)):
                beside = None if math.isnan(other) else round(other, 4)
                yield {"layer": layer, "loop": loop, "head": head, "share": round(own, 4), "shuffled": beside}


def _answers_of(relation: Relation, others: Annotated[Tensor, Int("B")]) -> Annotated[Tensor, Int("P")]:
    """For each pair, how far the first answer of the same relation stands in another sentence; -1 where it has none.

    Spec: [translation.heads][].
    """
    first = torch.full((len(others),), -1)
    for row, answer in zip(relation.row.tolist()[::-1], relation.answers.tolist()[::-1], strict=True):
        first[row] = answer
    return first[others[relation.row]]


def _errors(model: Seq2Seq, batch: Batch, sentences: Sequence[Sentence], loops: int) -> dict[str, Any]:
    *_, h = model.states(batch.tokens, loops)
    guess = model.logits(h).argmax(-1)
    wrong: Annotated[Tensor, Bool("B T")] = (guess != batch.targets) & batch.scored
    counts = {role: [0, 0] for role in ROLES}
    first = batch.scored.long().argmax(1).tolist()
    missed = wrong.tolist()
    for row, sentence in enumerate(sentences):
        place = first[row]
        for piece in pieces_of(sentence):
            for n in range(len(piece.text)):
                counts[piece.role][0] += missed[row][place + n]
                counts[piece.role][1] += 1
            place += len(piece.text)
    shares = {role: round(bad / total, 6) for role, (bad, total) in counts.items() if total}
    return {"right": int(solved(guess, batch).sum()), "wrong": shares}
