"""How a translation is chosen from a model's probabilities, and what that does: exactness against diversity."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from looplm.errors import InputError
from looplm.runs.checkpoint import Trained
from looplm.task import TASKS
from looplm.tasks.translation import MAX_SYLLABLES, Translation
from looplm.think.beam import Beam
from looplm.think.generate import Generated, generate
from looplm.think.sampling import Sampling

SCHEMA = 1
"""Version of the layout of `measure_choosing`."""
CLAUSES = 2
"""Of the sentences."""
EXAMPLES = 3
"""Sentences at most that greedy choosing and beam search translate differently."""


@dataclass(frozen=True)
class Way:
    """One way of choosing."""

    name: str
    sampling: Sampling = field(default_factory=Sampling)
    beam: Beam | None = None

    @property
    def draws(self) -> bool:
        """Whether another seed may give another translation."""
        return self.sampling.temperature > 0


WAYS = (
    Way("greedy"),
    Way("beam of 4, length penalty 0", beam=Beam(width=4, length_penalty=0)),
    Way("beam of 4, length penalty 1", beam=Beam(width=4, length_penalty=1)),
    Way("beam of 4, length penalty 3", beam=Beam(width=4, length_penalty=3)),
    Way("temperature 0.5", Sampling(temperature=0.5)),
    Way("temperature 1", Sampling(temperature=1.0)),
    Way("temperature 1.5", Sampling(temperature=1.5)),
    Way("temperature 1, top-k 5", Sampling(temperature=1.0, top_k=5)),
    Way("temperature 1, top-p 0.9", Sampling(temperature=1.0, top_p=0.9)),
)


def measure_choosing(
    trained: Trained, count: int, draws: int, seed: int, on_message: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """Translate the same sentences in every way, those that draw several times.

    Args:
        trained: of the task translation.
        count: sentences of two clauses with pairs that training never saw.
        draws: translations of each sentence by a way that draws.
        seed: of the sentences; those of the draws are 0, 1, ....
        on_message: told of each way.

    Returns:
        For each way `right`, the translations that are the reference, of `n`; `distinct`, different translations of a sentence,
        the mean; and `log_probability`, of a translation under the model, the mean. `differ`: sentences that
        greedy choosing and the first beam translate differently, and what the two and the grammar say.

    Raises:
        InputError: if the model is of another task.

    Spec: [generation.filters][], [generation.beam-search][].
    """
    task, model = trained.recipe.task, trained.model
    if not isinstance(task, Translation):
        raise InputError(f"translations are chosen by a model of the task translation: got one of {TASKS.name_of(type(task))}.")
    sentences = task.sentences("unseen", CLAUSES, count, seed)
    texts, wanted = [" ".join(each.english()) for each in sentences], [each.korean() for each in sentences]
    prompts = [task.prompt(text).tokens for text in texts]

    def translate(way: Way, draw: int) -> Generated:
        return generate(
            model,
            prompts,
            halting=trained.recipe.halting,
            max_new_tokens=MAX_SYLLABLES,
            stop_token=task.vocabulary.stop or 0,
            sampling=way.sampling,
            beam=way.beam,
            seeds=None if way.beam else [1000 * draw + row for row in range(count)],
            log_probabilities=True,
        )

    ways, said = [], {}
    for way in WAYS:
        on_message(way.name)
        made = [translate(way, draw) for draw in range(draws if way.draws else 1)]
        answers = [[task.answer(tokens) for tokens in one.tokens] for one in made]
        sums = torch.tensor([[sum(row) for row in one.log_probabilities or []] for one in made], dtype=torch.float64)
        ways.append(
            {
                "name": way.name,
                "n": count * len(made),
                "right": sum(answer == right for one in answers for answer, right in zip(one, wanted, strict=True)),
                "distinct": round(sum(len(set(of)) for of in zip(*answers, strict=True)) / count, 4),
                "draws": len(made),
                "log_probability": round(float(sums.mean()), 4),
            }
        )
        said[way.name] = answers[0]
    greedy, searched = said[WAYS[0].name], said[WAYS[1].name]
    differ = [
        {"text": text, "greedy": one, "beam": other, "right": right}
        for text, one, other, right in zip(texts, greedy, searched, wanted, strict=True)
        if one != other
    ]
    return {
        "schema": SCHEMA,
        "seed": seed,
        "sentences": count,
        "ways": ways,
        "differ": {"count": len(differ), "beam": WAYS[1].name, "examples": differ[:EXAMPLES]},
    }
