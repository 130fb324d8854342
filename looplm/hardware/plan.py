"""What a run would cost, line by line; every line names the clause that computes it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from looplm.hardware import formulas
from looplm.hardware.profile import SIZES, Profile
from looplm.hardware.setting import (
    Setting,
    choose,
    generation_bytes,
    largest_generation_batch,
    largest_training_batch,
    refusal,
    training_peak,
)
from looplm.hardware.workload import Workload
from looplm.spec import citation


@dataclass(frozen=True)
class Line:
    """One number of a plan."""

    section: str
    what: str
    value: float
    unit: str
    clause: str
    note: str = ""


@dataclass(frozen=True)
class Speed:
    """The roofline's time of one pass."""

    seconds: float
    wall: str
    """compute, memory or cache."""
    tokens: int
    """New ones of the pass."""
    flops: float
    from_memory: float
    """Bytes."""

    @property
    def tokens_per_s(self) -> float:
        """At the roofline: no run is faster."""
        return self.tokens / self.seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A workload on a device."""

    workload: Workload
    profile: Profile
    setting: Setting
    fits: bool
    """Whether a training step does."""
    refusal: str
    """Where it does not: what it needs, what there is, what to change; else empty."""
    lines: tuple[Line, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything, in the layout that `looplm plan --json` prints."""
        return {
            "schema": 1,
            "preset": self.workload.name,
            "profile": self.profile.name,
            "fits": self.fits,
            "setting": asdict(self.setting),
            "refusal": self.refusal,
            "lines": [asdict(line) | {"clause": citation(line.clause)} for line in self.lines],
        }


def make_plan(
    workload: Workload, profile: Profile, *, rows: int | None = None, recompute: bool = False, utilization: float = 1.0
) -> Plan:
    """Plan a workload on a device.

    Args:
        workload: what is to be run.
        profile: the device.
        rows: of one part of a training batch; by default as many as fit, at most what the profile recommends.
        recompute: compute each layer again in the backward pass, in place of keeping what it needs.
        utilization: the share of the roofline that days and energy count with, in (0, 1].
    """
    dtype = profile.use.training_dtype
    chosen = choose(workload, profile, recompute=recompute)
    if rows:
        chosen = Setting(rows=rows, parts=-(-workload.batch_size // rows), dtype=dtype, recompute=recompute)
    setting = chosen or Setting(rows=1, parts=workload.batch_size, dtype=dtype, recompute=recompute)
    fits = training_peak(workload, setting) <= profile.usable_bytes
    lines = [
        *_parameters(workload),
        *_training_memory(workload, profile, setting),
        *_training_time(workload, profile, setting, utilization),
        *_generation(workload, profile),
        *_by_loops(workload, profile, setting),
    ]
    why = "" if fits else refusal(workload, profile, setting)
    return Plan(workload=workload, profile=profile, setting=setting, fits=fits, refusal=why, lines=tuple(lines))


def training_speed(workload: Workload, profile: Profile, setting: Setting) -> Speed:
    """The roofline of one part of a step.

    Spec: [hardware.training-flops][], [hardware.traffic][], [hardware.roofline][].
    """
    model, tokens, loops, reads = workload.model, workload.context_tokens, workload.num_loops, workload.reads
    flops = setting.rows * formulas.training_flops(model, tokens, loops, reads, setting.recompute, workload.scored_share)
    size = SIZES[setting.dtype]
    passed = (model, setting.rows, tokens, loops, reads, size, profile.cache_bytes, workload.scored_share)
    traffic = formulas.step_traffic(*passed)
    return _speed(profile, profile.flop_per_s(setting.dtype), flops, traffic, setting.rows * tokens)


def prefill_speed(workload: Workload, profile: Profile, rows: int) -> Speed:
    """The roofline of reading prompts of full length; logits are read after every loop, as halting needs them.

    Spec: [hardware.forward-flops][], [hardware.traffic][], [hardware.roofline][].
    """
    return _generation_speed(workload, profile, rows, workload.context_tokens)


def decode_speed(workload: Workload, profile: Profile, rows: int) -> Speed:
    """The roofline of one new token a row, at full context.

    Spec: [hardware.forward-flops][], [hardware.traffic][], [hardware.roofline][].
    """
    return _generation_speed(workload, profile, rows, 1)


def with_loops(workload: Workload, loops: int) -> Workload:
    """The same model, run for another number of loops; training reads the second half."""
    return replace(workload, num_loops=loops, first_read=loops // 2 + 1)


def _generation_speed(workload: Workload, profile: Profile, rows: int, tokens: int) -> Speed:
    dtype, length, loops = profile.use.generation_dtype, workload.context_tokens, workload.num_loops
    flops = rows * formulas.forward_flops(workload.model, tokens, length, loops, loops)
    traffic = formulas.pass_traffic(workload.model, rows, length, loops, SIZES[dtype], profile.cache_bytes)
    return _speed(profile, profile.flop_per_s(dtype), flops, traffic, rows * tokens)


def _speed(profile: Profile, rate: float, flops: float, traffic: formulas.Traffic, tokens: int) -> Speed:
    cache_bandwidth = profile.cache_gb_per_s * 1e9 if profile.cache_gb_per_s else None
    seconds, wall = formulas.roofline(flops, traffic, rate, profile.memory_gb_per_s * 1e9, cache_bandwidth)
    return Speed(seconds, wall, tokens, flops, traffic.from_memory)


def _parameters(workload: Workload) -> Iterator[Line]:
    """Part by part.

    Spec: [hardware.parameters][].
    """
    parts = formulas.parameters(workload.model)
    for name, count in parts.items():
        if count:
            yield Line("parameters", name, count, "", "hardware.parameters")
    yield Line("parameters", "all", sum(parts.values()), "", "hardware.parameters", "the head is tied to the embedding")


def _training_memory(workload: Workload, profile: Profile, setting: Setting) -> Iterator[Line]:
    """What a step occupies, as it is set and with layers computed again.

    Spec: [hardware.state-bytes][], [hardware.kept-bytes][].
    """
    section, model, size = "training: memory", workload.model, SIZES[setting.dtype]
    for name, held in formulas.state_bytes(model).items():
        yield Line(section, name, held, "bytes", "hardware.state-bytes")
    heads = workload.reads * workload.scored_share * formulas.head_kept(model, size)
    tokens = setting.rows * workload.context_tokens
    part = f"{setting.rows} rows of {workload.context_tokens:,} tokens{_loops(workload)}, {setting.dtype} products"
    for what, recompute in (("activations", False), ("activations, layers computed again", True)):
        loop = formulas.loop_kept(model, workload.context_tokens, size, recompute)
        yield Line(section, f"{what}: a token and loop", loop, "bytes", "hardware.kept-bytes")
        kept = tokens * (workload.num_loops * loop + heads)
        yield Line(section, f"{what}: a part", kept, "bytes", "hardware.kept-bytes", part)
    for what, recompute in (("peak", False), ("peak, layers computed again", True)):
        peak = training_peak(workload, replace(setting, recompute=recompute))
        note = "this plan" if recompute == setting.recompute else ""
        yield Line(section, what, peak, "bytes", "hardware.training-peak", note)
    share = f"{profile.use.memory_share:.0%} of {profile.memory_gib:g} GiB"
    yield Line(section, "there is", profile.usable_bytes, "bytes", "hardware.refusal", share)
    for what, recompute in (("largest part that fits", False), ("the same, layers computed again", True)):
        rows = largest_training_batch(workload, profile, setting.dtype, recompute)
        yield Line(section, what, rows, "rows", "hardware.largest-batch")


def _training_time(workload: Workload, profile: Profile, setting: Setting, utilization: float) -> Iterator[Line]:
    """A step, and the whole run.

    Spec: [hardware.run-cost][].
    """
    section, speed = "training: time", training_speed(workload, profile, setting)
    yield Line(section, "operations of a token", speed.flops / speed.tokens, "FLOP", "hardware.training-flops")
    yield Line(section, "memory traffic of a token", speed.from_memory / speed.tokens, "bytes", "hardware.traffic")
    yield Line(section, "a step, at least", speed.seconds * setting.parts, "s", "hardware.roofline", f"wall: {speed.wall}")
    yield Line(section, "speed, at most", speed.tokens_per_s, "tokens/s", "hardware.roofline")
    if workload.train_tokens:
        reached = speed.tokens_per_s * utilization
        days, energy = formulas.run_cost(workload.train_tokens, reached, profile.power_w or 0)
        at = f"{workload.train_tokens:,} tokens at {utilization:.0%} of the roofline"
        yield Line(section, "the whole run", days, "days", "hardware.run-cost", at)
        if profile.power_w:
            yield Line(section, "energy", energy, "kWh", "hardware.run-cost", f"at {profile.power_w:g} W")


def _generation(workload: Workload, profile: Profile) -> Iterator[Line]:
    section, dtype = "generation", profile.use.generation_dtype
    length, loops, size = workload.context_tokens, workload.num_loops, SIZES[dtype]
    cache = formulas.cache_bytes(workload.model, length, loops, size)
    yield Line(
        section, "cache of a row", cache, "bytes", "hardware.cache-bytes", f"{length:,} tokens{_loops(workload)}, {dtype}"
    )
    yield Line(
        section, "weights, cache, logits of one row", generation_bytes(workload, 1, dtype), "bytes", "hardware.generation-bytes"
    )
    most = largest_generation_batch(workload, profile, dtype)
    yield Line(section, "largest batch that fits", most, "rows", "hardware.largest-batch")
    prefill = prefill_speed(workload, profile, 1)
    yield Line(section, "prefill: operations of a token", prefill.flops / prefill.tokens, "FLOP", "hardware.forward-flops")
    yield Line(section, "prefill: memory traffic of a token", prefill.from_memory / prefill.tokens, "bytes", "hardware.traffic")
    yield Line(section, "prefill, at most", prefill.tokens_per_s, "tokens/s", "hardware.roofline", f"wall: {prefill.wall}")
    for rows in dict.fromkeys((1, max(1, min(most, profile.use.batch_size)))):
        decode = decode_speed(workload, profile, rows)
        if rows == 1:
            yield Line(
                section, "decode: operations of a token", decode.flops, "FLOP", "hardware.forward-flops", "at full context"
            )
            yield Line(section, "decode: memory traffic of a token", decode.from_memory, "bytes", "hardware.traffic", "one row")
        what = f"decode, {rows} row{'s' * (rows > 1)}, at most"
        yield Line(section, what, decode.tokens_per_s, "tokens/s", "hardware.roofline", f"wall: {decode.wall}")


def _by_loops(workload: Workload, profile: Profile, setting: Setting) -> Iterator[Line]:
    if workload.model.body == "static":
        return
    for loops in sorted({1, 2, 4, 8, 12, 24, workload.num_loops}):
        other = with_loops(workload, loops)
        what = f"{loops} loop{'s' * (loops > 1)}"
        for kind, speed in (
            ("training", training_speed(other, profile, setting)),
            ("decode, 1 row", decode_speed(other, profile, 1)),
        ):
            note = f"wall: {speed.wall}"
            yield Line("by loops, at most", f"{what}: {kind}", speed.tokens_per_s, "tokens/s", "hardware.roofline", note)


def _loops(workload: Workload) -> str:
    return f", {workload.num_loops} loops" if workload.num_loops > 1 else ""
