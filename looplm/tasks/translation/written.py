"""A translation as it was written: each syllable with what might have stood there, and what was read for it."""

from typing import Any

import torch

from looplm.models.seq2seq import Seq2Seq
from looplm.runs.checkpoint import Trained
from looplm.tasks.translation.grammar import parse
from looplm.tasks.translation.heads import attention_of
from looplm.think.answer import respond

SCHEMA = 1
"""Version of the layout of `written`."""
CANDIDATES = 3
"""Of each syllable."""


@torch.no_grad()
def written(trained: Trained, text: str) -> dict[str, Any]:
    """Translate a sentence, then read it once more with what was written.

    Args:
        trained: of the task translation.
        text: in English.

    Returns:
        `answer`, `right`, `english`, the words that are read and the end mark, and `syllables`: of each, the end mark last,
        the likeliest candidates with their probabilities; of an encoder-decoder also `attention`, what each head of the
        last layer reads of each word, and `reads`, the word that the mean head reads most.

    Raises:
        InputError: if the grammar has no such sentence.
    """
    model, task = trained.model, trained.recipe.task
    (response,) = respond(model, task, [text], trained.recipe.halting)
    prompt, symbols = task.prompt(text).tokens, task.vocabulary.symbols
    english = [symbols[id] for id in prompt]
    tokens = torch.tensor([prompt + response.tokens[:-1]], device=model.device)
    loops = trained.recipe.halting.max_loops
    reads: list[list[list[float]]] | None = None
    if isinstance(model, Seq2Seq):
        with attention_of(model) as seen:
            *_, h = model.states(tokens, loops)
        last = seen["cross", max(layer for kind, layer in seen if kind == "cross")][-1]
        reads = last[0].transpose(0, 1).tolist()  # syllable, head, word
    else:
        *_, h = model.states(tokens, loops)
    shares, ids = model.logits(h[0, len(prompt) - 1 :]).softmax(-1).topk(CANDIDATES)
    syllables = []
    for n, (some, which) in enumerate(zip(shares.tolist(), ids.tolist(), strict=True)):
        candidates = [{"said": symbols[id], "share": round(share, 6)} for id, share in zip(which, some, strict=True)]
        syllable: dict[str, Any] = {"candidates": candidates}
        if reads:
            means = [sum(head[word] for head in reads[n]) / len(reads[n]) for word in range(len(english))]
            best = max(range(len(english)), key=means.__getitem__)
            syllable["reads"] = {"word": english[best], "share": round(means[best], 4)}
            syllable["attention"] = [[round(share, 4) for share in head[: len(english)]] for head in reads[n]]
        syllables.append(syllable)
    right = parse(text).korean()
    return {
        "schema": SCHEMA,
        "text": text,
        "answer": response.answer,
        "right": right,
        "english": english,
        "syllables": syllables,
    }
