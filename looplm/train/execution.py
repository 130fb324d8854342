"""Running as a profile says: device, number format, parts, compilation, threads, share of the memory.

Nothing here changes what is learned from: a batch that is cut into parts still gives one step.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint

from looplm.errors import InputError
from looplm.hardware.profile import Profile
from looplm.hardware.setting import Setting, choose, generation_bytes, largest_generation_batch, refusal
from looplm.hardware.units import human
from looplm.hardware.workload import Workload
from looplm.models.body import Body
from looplm.models.looped import looped


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How training is computed. The default is the plainest way: whole batches in float32, nothing compiled."""

    parts: int = 1
    """That each batch is cut into."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the products of matrices; weights, gradients and moments stay float32, and float16 scales its gradients."""
    recompute: bool = False
    """Compute each layer again in the backward pass, in place of keeping what it needs."""
    recompute_loops: bool = False
    """The same for each whole loop: less is kept, for about as much computed again."""
    compile: bool = False
    workers: int = 0
    """Processes that draw the coming batches; 0: the training process draws its own."""
    prefetch: int = 2
    """Batches that each of them draws ahead."""
    profile: str | None = None
    """The profile that this follows, for the log."""

    def clauses(self) -> tuple[str, ...]:
        """Ids of the spec clauses that training so exercises."""
        return ("hardware.obeyed", *(["hardware.parts"] if self.parts > 1 else []))

    def summary(self) -> str:
        """One line of it for a reader."""
        words = [f"{self.dtype} products", f"each batch in {self.parts} parts" if self.parts > 1 else "whole batches"]
        words += ["layers computed again"] * self.recompute + ["loops computed again"] * self.recompute_loops
        words += ["compiled"] * self.compile + [f"{self.workers} workers"] * bool(self.workers)
        return ", ".join(words)

    def prepare(self, model: Body) -> Body:
        """The model, made to run so; its weights and their names stay the same."""
        if self.compile:
            looped(model, "compiling").block.compile()
        if self.recompute:
            if not model.blocks():
                raise InputError(f"the body {model.config.body!r} has no layers to compute again: leave `--recompute` out.")
            for layer in model.blocks():  # an attribute of the instance, in front of the class's method
                layer.forward = partial(_computed_again, layer.forward)
        if self.recompute_loops:
            plain = looped(model, "computing whole loops again")
            plain.step = partial(_computed_again, plain.step)  # type: ignore[method-assign]
        return model

    def products(self, device: torch.device) -> AbstractContextManager[object]:
        """Where products of matrices are computed in `dtype`."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(device.type, getattr(torch, self.dtype))


def _computed_again(forward: Callable[..., Any], *args: Any) -> Any:
    """What a function gives; its inside is not kept but computed again in the backward pass, in the context of now."""
    now = copy_context()  # which loop it is, and which rows: dropout draws the same again
    return checkpoint(lambda *inputs: now.run(forward, *inputs), *args, use_reentrant=False)


def plan_execution(workload: Workload, profile: Profile, *, recompute: bool = False, force: bool = False) -> Execution:
    """How the profile wants this trained.

    Args:
        workload: the training.
        profile: the device.
        recompute: see `Execution.recompute`.
        force: try even what does not fit, one row at a time.

    Raises:
        InputError: if a step does not fit, with the arithmetic and the nearest setting that does.

    Spec: [hardware.obeyed][], [hardware.refusal][].
    """
    setting = choose(workload, profile, recompute=recompute)
    if setting is None:
        dtype = profile.use.training_dtype
        setting = Setting(rows=1, parts=workload.batch_size, dtype=dtype, recompute=recompute)
        if not force:
            raise InputError(refusal(workload, profile, setting) + " `--force` tries all the same.")
    return Execution(
        parts=setting.parts,
        dtype=setting.dtype,
        recompute=recompute,
        compile=profile.use.compile,
        profile=profile.name,
    )


def limit_memory(profile: Profile, device: torch.device) -> None:
    """Let PyTorch take the profile's share of a GPU's memory and no more.

    Spec: [hardware.obeyed][].
    """
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(profile.use.memory_share, device)
    elif device.type == "mps":
        torch.mps.set_per_process_memory_fraction(profile.use.memory_share)


def with_products(model: Body, profile: Profile) -> Body:
    """A model that generates in the profile's number format, compiled if it says so.

    Spec: [hardware.obeyed][].
    """
    model = model.to(torch.bfloat16 if profile.use.generation_dtype == "bfloat16" else torch.float32)
    if profile.use.compile:
        looped(model, "compiling").block.compile()
    return model


def refuse_generation(model: Body, rows: int, tokens: int, loops: int, profile: Profile) -> None:
    """Raise InputError if so many rows of so many tokens do not fit the profile's memory.

    Spec: [hardware.refusal][].
    """
    config = looped(model, "what generation needs").config
    workload = Workload(name="the model", title="", model=config, context_tokens=tokens, num_loops=loops, batch_size=rows)
    dtype = profile.use.generation_dtype
    needed = generation_bytes(workload, rows, dtype)
    if needed <= profile.usable_bytes:
        return
    most = largest_generation_batch(workload, profile, dtype)
    advice = f"at most {most} at a time: set `batch_size = {most}` in the profile" if most else "shorter texts"
    there = human(profile.usable_bytes, "bytes")
    raise InputError(
        f"generation does not fit {profile.title}: {rows} text{'s' * (rows > 1)} of {tokens:,} tokens need "
        f"{human(needed, 'bytes')}, and there are {there}. What fits: {advice}. `--force` tries all the same."
    )
