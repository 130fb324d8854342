"""Running as a profile says: device, number format, parts, compilation, threads, share of the memory.

Nothing here changes what is learned from: a batch that is cut into parts still gives one step.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from looplm.errors import InputError
from looplm.hardware.profile import Precision, Profile
from looplm.hardware.setting import Setting, choose, refusal
from looplm.hardware.workload import Workload
from looplm.models.looped import LoopLM


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How training is computed. The default is the plainest way: whole batches in float32, nothing compiled."""

    parts: int = 1
    """That each batch is cut into."""
    dtype: Precision = "float32"
    """Of the products of matrices; weights, gradients and moments stay float32."""
    recompute: bool = False
    """Compute each layer again in the backward pass, in place of keeping what it needs."""
    compile: bool = False
    profile: str | None = None
    """The profile that this follows, for the log."""
    clauses: tuple[str, ...] = field(default=())
    """Ids of the spec clauses that this exercises."""

    def prepare(self, model: LoopLM) -> LoopLM:
        """The model, made to run so; its weights and their names stay the same."""
        if self.compile:
            model.block.compile()
        if self.recompute:
            for layer in model.block.layers:  # an attribute of the instance, in front of the class's method
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        return model

    def products(self, device: torch.device) -> AbstractContextManager[object]:
        """Where products of matrices are computed in `dtype`."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")


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
        clauses=("hardware.obeyed", "hardware.parts"),
    )


def take_device(profile: Profile, device: torch.device, threads: int | None = None) -> None:
    """Give PyTorch the profile's threads, or `threads`, and its share of the device's memory.

    Spec: [hardware.obeyed][].
    """
    torch.set_num_threads(threads or profile.use.threads)
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(profile.use.memory_share, device)
    elif device.type == "mps":
        torch.mps.set_per_process_memory_fraction(profile.use.memory_share)

