"""What a model writes of the small world: which sentences are right, which stories keep who has what, and what is new."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from looplm.errors import InputError
from looplm.evaluate.scores import wilson_interval
from looplm.loop.halting import HaltingRule
from looplm.models.body import Body
from looplm.runs.checkpoint import Trained
from looplm.runs.provenance import circumstances
from looplm.tasks.language import Language
from looplm.tasks.language.corpus import BOUNDARY, read_text
from looplm.tasks.language.world.grammar import PATTERNS, forms, read, words_of
from looplm.tasks.language.world.stories import keeps
from looplm.think.generate import generate
from looplm.think.sampling import Sampling

TOP_P = 0.95
"""Of the drawing; temperature 1."""
_ROWS = 20
"""Stories that are written at once."""
_SHOWN = 20
"""Stories that are kept as they came."""


@dataclass(frozen=True)
class Judgement:
    """Counts over the first sentences and over all stories that a model wrote."""

    sentences: int
    parsed: int
    stories: int
    kept: int
    """Stories of which every sentence is right and none contradicts those before it."""
    distinct: int
    """Different sentences among them."""
    new: int
    """Of these, those that do not stand in the training text."""
    unfinished: int
    """Stories that were longer than the model's context; they are judged as far as they go."""

    def as_json(self) -> dict[str, Any]:
        """Each share with its counts and its 95 % Wilson interval."""
        shares = {
            "parse": (self.parsed, self.sentences),
            "keep_who_has_what": (self.kept, self.stories),
            "new": (self.new, self.distinct),
        }
        cells = {
            name: {"right": right, "n": n, "interval": [round(bound, 6) for bound in wilson_interval(right, n)]}
            for name, (right, n) in shares.items()
        }
        return cells | {"unfinished_stories": self.unfinished}


def judge_model(trained: Trained, text: Path, stories: int, sentences: int, seed: int) -> dict[str, Any]:
    """Let a trained model write stories, and count what is right in them; with the first stories as they came.

    Args:
        trained: on a text, with a tokenizer.
        text: what it was trained on; sentences that stand there are not new.
        stories: to be written.
        sentences: the first ones of them, of which shares are counted.
        seed: of the drawing.

    Raises:
        InputError: if the model is none of text, the text cannot be read, or too few sentences are written.
    """
    if not isinstance(trained.recipe.task, Language):
        raise InputError(f"{trained.recipe.name} is no model of text; give a run of `looplm train ko-tiny`.")
    seen = set(read_text(text).replace(BOUNDARY, "\n").split("\n"))
    written, cut = sample(trained.model, trained.recipe.task, trained.recipe.halting, stories, seed)
    content = text.read_bytes()
    return {
        "preset": trained.recipe.name,
        "parameters": sum(weight.numel() for weight in trained.model.parameters()),
        "text": {"name": text.name, "bytes": len(content), "sha256": sha256(content).hexdigest()},
        "words": words(),
        "sampling": {"temperature": 1.0, "top_p": TOP_P, "seed": seed},
        "shares": judge(written, seen, sentences, cut).as_json(),
        "training": trained.provenance,
        "judged": circumstances(torch.device("cpu")),
        "samples": written[:_SHOWN],
    }


def judge(stories: Sequence[Sequence[str]], seen: Collection[str], sentences: int, unfinished: int = 0) -> Judgement:
    """Count what is right in some stories, their first `sentences` lines taken for the shares of sentences.

    Args:
        stories: line by line.
        sentences: how many.
        unfinished: stories that were cut.
        seen: the sentences of the training text; a set, so that looking up is quick.

    Raises:
        InputError: if the stories hold fewer lines.

    Spec: [world.judged][], [world.who-has-what][].
    """
    lines = [line for story in stories for line in story][:sentences]
    if len(lines) < sentences:
        raise InputError(
            f"the stories hold {len(lines):,} sentences, and {sentences:,} are to be judged; ask for more `--stories`."
        )
    distinct = set(lines)
    return Judgement(
        sentences=len(lines),
        parsed=sum(read(line) is not None for line in lines),
        stories=len(stories),
        kept=sum(map(keeps, stories)),
        distinct=len(distinct),
        new=sum(line not in seen for line in distinct),
        unfinished=unfinished,
    )


def sample(model: Body, task: Language, halting: HaltingRule, stories: int, seed: int) -> tuple[list[list[str]], int]:
    """Stories as a model writes them from nothing, line by line, and how many were cut at the context.

    Raises:
        InputError: if the task has no tokenizer, whose end mark says where a story begins and ends.
    """
    pieces = task.pieces
    if pieces is None:
        raise InputError("a model of bytes has no mark that ends a story; train one with a tokenizer, as `ko-tiny` does.")
    written: list[list[str]] = []
    unfinished = 0
    for first in range(0, stories, _ROWS):
        rows = min(_ROWS, stories - first)
        made = generate(
            model,
            [task.opening] * rows,
            halting=halting,
            max_new_tokens=task.context + 1 - len(task.opening),
            stop_token=pieces.end,
            sampling=Sampling(temperature=1.0, top_p=TOP_P, seed=seed),
            seeds=[seed * stories + first + row for row in range(rows)],
        )
        for ids in made.tokens:
            whole = ids[-1] == pieces.end
            lines = pieces.decode(ids).split("\n")
            written.append([line for line in (lines if whole else lines[:-1]) if line])
            unfinished += not whole
    return written, unfinished


def words() -> dict[str, int]:
    """Words of the world: as a dictionary lists them, and as they stand in text between white space."""
    slots = [word for pattern in PATTERNS for word in pattern.words if not isinstance(word, str)]
    fixed = {word for pattern in PATTERNS for word in pattern.words if isinstance(word, str)}
    listed = {word for slot in slots for word in words_of(slot.role)}
    standing = {slot.before + form + slot.after for slot in slots for form in forms(slot.role, slot.form)}
    return {"listed": len(listed), "forms": len({word.strip('.?,"') for word in fixed | standing})}
