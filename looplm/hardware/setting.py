"""How a training step is cut so that it fits a device, and what to change where it does not."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

from looplm.hardware import memory
from looplm.hardware.profile import SIZES, Precision, Profile, load_profile, profile_names
from looplm.hardware.units import human
from looplm.hardware.workload import Workload

MOST_ROWS = 2**20
"""No batch larger than this is looked for."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How one step of training is computed; nothing of it changes what is learned."""

    rows: int
    """Of one part of the batch."""
    parts: int = 1
    """That the batch is cut into, one after the other."""
    dtype: Precision = "float32"
    """Of the products of matrices."""
    recompute: bool = False
    """Compute each layer again in the backward pass, in place of keeping what it needs."""


def training_peak(workload: Workload, setting: Setting) -> int:
    """Bytes of the tensors alive at the worst moment of a step.

    Spec: [hardware.training-peak][].
    """
    step = memory.Step(
        model=workload.model,
        rows=setting.rows,
        tokens=workload.context_tokens,
        loops=workload.num_loops,
        reads=workload.reads,
        scored_share=workload.scored_share,
        size=SIZES[setting.dtype],
        recompute=setting.recompute,
        parts=setting.parts,
    )
    return step.peak()


def generation_bytes(workload: Workload, rows: int, dtype: Precision) -> int:
    """Bytes that rows of full length take while they are generated.

    Spec: [hardware.generation-bytes][].
    """
    length = workload.context_tokens
    return memory.generation_bytes(workload.model, rows, length, length, workload.num_loops, SIZES[dtype])


def largest_training_batch(
    workload: Workload, profile: Profile, dtype: Precision, recompute: bool, limit: int = MOST_ROWS
) -> int:
    """The most rows, at most `limit`, that one part of a batch can have; 0 if not even one fits.

    A batch that is not cut keeps no sum of gradients beside the new ones, so it may fit where fewer rows of a cut one do not.

    Spec: [hardware.largest-batch][].
    """

    def fits(rows: int) -> bool:
        parts = ceil(workload.batch_size / rows)
        setting = Setting(rows=rows, parts=parts, dtype=dtype, recompute=recompute)
        return training_peak(workload, setting) <= profile.usable_bytes

    whole = workload.batch_size if workload.batch_size <= limit and fits(workload.batch_size) else 0
    return memory.largest_batch(lambda rows: rows <= whole or fits(rows), limit)


def largest_generation_batch(workload: Workload, profile: Profile, dtype: Precision) -> int:
    """The most rows of full length that can be generated together.

    Spec: [hardware.largest-batch][].
    """
    needed = partial(generation_bytes, workload, dtype=dtype)
    return memory.largest_batch(lambda rows: needed(rows) <= profile.usable_bytes, MOST_ROWS)


def choose(workload: Workload, profile: Profile, *, recompute: bool = False, dtype: Precision | None = None) -> Setting | None:
    """The fewest equal parts that fit the memory and the profile's batch size; None if not even one row fits.

    Spec: [hardware.obeyed][].
    """
    dtype = dtype or profile.use.training_dtype
    most = largest_training_batch(workload, profile, dtype, recompute, min(profile.use.batch_size, workload.batch_size))
    if most < 1:
        return None
    parts = ceil(workload.batch_size / most)
    return Setting(rows=ceil(workload.batch_size / parts), parts=parts, dtype=dtype, recompute=recompute)


def remedies(workload: Workload, profile: Profile, *, recompute: bool, dtype: Precision) -> Iterator[str]:
    """What to change so that a step fits, the nearest change first.

    Spec: [hardware.refusal][].
    """
    found = partial(choose, workload, profile)
    tries = [
        ("", recompute, dtype),
        (", with --recompute", True, dtype),
        (', with --recompute and training_dtype = "bfloat16" in the profile', True, "bfloat16"),
    ]
    for words, again, products in tries:
        setting = found(recompute=again, dtype=products)
        if setting:
            yield f"{setting.rows} row{'s' * (setting.rows > 1)} at a time, {setting.parts} parts a step{words}"
            break
    else:
        context = workload.context_tokens // 2
        while context and not choose(replace(workload, context_tokens=context), profile, recompute=True, dtype=dtype):
            context //= 2
        if context:
            yield f"a context of {context:,} tokens, with --recompute"
    others = [name for name in profile_names() if name != profile.name and _fits(workload, load_profile(name))]
    if others:
        yield f"another profile: {', '.join(others)}"


def _fits(workload: Workload, profile: Profile) -> bool:
    return choose(workload, profile) is not None


def refusal(workload: Workload, profile: Profile, setting: Setting) -> str:
    """One line: what a step needs, what there is, and what to change.

    Spec: [hardware.refusal][].
    """
    needed, there = human(training_peak(workload, setting), "bytes"), human(profile.usable_bytes, "bytes")
    rows = f"{setting.rows} row{'s' * (setting.rows > 1)} of {workload.context_tokens:,} tokens"
    advice = "; or ".join(remedies(workload, profile, recompute=setting.recompute, dtype=setting.dtype))
    return (
        f"{workload.name} does not fit {profile.title}: a training step of {rows} needs {needed}, and there are {there} "
        f"({profile.use.memory_share:.0%} of {profile.memory_gib:g} GiB). What fits: {advice or 'only a smaller model'}."
    )
