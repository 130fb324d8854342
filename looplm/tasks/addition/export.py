"""Additions as a dataset for other programs: parquet files, written with the `datasets` library."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from looplm.draws import Draw
from looplm.errors import InputError
from looplm.files import new_folder
from looplm.tasks.addition.problems import EOS, SYMBOLS, Format, Problems, add, decimal, write
from looplm.tasks.addition.sets import draw_training, test_set

if TYPE_CHECKING:
    from looplm.tasks.addition import Addition

_BATCH = 8_192
_TRIES_WITHOUT_GAIN = 20


def export(
    folder: Path, task: "Addition", count: int, test_digits: tuple[int, ...], test_count: int, seed: int
) -> dict[str, int]:
    """Write train.parquet and test.parquet; gives the number of problems of each.

    Training problems are distinct and never held out; test problems are held out. Load it with
    `datasets.load_dataset("parquet", data_files={"train": ..., "test": ...})`.

    Raises:
        InputError: if there are not as many distinct problems, or the folder exists.

    Spec: [addition.held-out][], [addition.training-draw][].
    """
    from datasets import Dataset, concatenate_datasets, disable_progress_bars

    disable_progress_bars()

    with new_folder(folder) as draft:
        train = Dataset.from_dict(_columns(_distinct(count, task, seed), task.format, "train"))
        tests = [
            Dataset.from_dict(_columns([test_set(kind, digits, test_count, seed)], task.format, kind))
            for kind in ("uniform", "carry-heavy")
            for digits in test_digits
        ]
        parts = {"train.parquet": train} | ({"test.parquet": concatenate_datasets(tests)} if tests else {})
        for name, dataset in parts.items():
            dataset.to_parquet(str(draft / name))
    return {name: len(dataset) for name, dataset in parts.items()}


def _distinct(count: int, task: "Addition", seed: int) -> list[Problems]:
    """Batches of training problems, `count` in all, no ordered pair twice."""
    seen: set[tuple[str, str]] = set()
    batches, fruitless, number = [], 0, count_from()
    while len(seen) < count:
        drawn = draw_training(range(_BATCH), task, Draw(seed, "export", next(number)))
        new = []
        for row, pair in enumerate(drawn.numbers()):
            if pair not in seen and len(seen) < count:
                seen.add(pair)
                new.append(row)
        batches.append(drawn[torch.tensor(new, dtype=torch.int64)])
        fruitless = 0 if len(new) > _BATCH // 1000 else fruitless + 1
        if fruitless > _TRIES_WITHOUT_GAIN:
            raise InputError(f"found only {len(seen):,} distinct problems of {count:,}; ask for fewer, or allow more digits.")
    return batches


def _columns(batches: Iterable[Problems], format: Format, name: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = defaultdict(list)
    for batch in batches:
        sums, texts = add(batch), write(batch, format)
        columns["set"] += [name] * len(batch)
        for a, b in batch.numbers():
            columns["a"].append(a)
            columns["b"].append(b)
        columns["sum"] += [decimal(digits, length) for digits, length in zip(sums.digits, sums.length, strict=True)]
        for row, end in zip(texts.tokens.tolist(), texts.prompt_length.tolist(), strict=True):
            columns["prompt"].append("".join(SYMBOLS[token] for token in row[1:end]))
            columns["answer"].append("".join(SYMBOLS[token] for token in row[end : row.index(EOS)]))
        columns["carries"] += sums.carries.tolist()
        columns["longest_chain"] += sums.longest_chain.tolist()
    return columns
