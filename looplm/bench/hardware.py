"""Predicted beside measured: memory of training steps, and times against the roofline of this machine.

`looplm bench hardware --out docs/data/hardware.json` writes it; pages and tests read that file.
"""

import multiprocessing
import os
import random
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from looplm.config import ModelConfig
from looplm.draws import Draw
from looplm.hardware.detect import best_time, detect
from looplm.hardware.live import LiveBytes
from looplm.hardware.plan import Speed, decode_speed, prefill_speed, training_speed
from looplm.hardware.profile import Profile
from looplm.hardware.setting import Setting, training_peak
from looplm.hardware.workload import Workload
from looplm.loop.cache import KVCache
from looplm.loop.halting.fixed import Fixed
from looplm.models import build_model
from looplm.models.looped import LoopLM
from looplm.runs.provenance import circumstances
from looplm.settings import as_table
from looplm.task import Batch
from looplm.train.config import TrainingConfig
from looplm.train.execution import Execution
from looplm.train.loops import LoopPlan
from looplm.train.objective import make_objective
from looplm.train.optimizer import make_optimizer
from looplm.train.trainer import add_gradient
from looplm.train.workloads import find_workload

SCHEMA = 1
_CPU = torch.device("cpu")
_SIZES = (
    ("first-light", 96),
    ("first-light-static", 96),
    ("looplm-128", 16),
    ("looplm-256", 8),
    ("looplm-384", 8),
    ("static-12", 8),
)
"""Whose memory is measured, and with how many rows."""
_BIG = ("looplm-384", 64)
"""A step of more than 1 GiB, whose process is weighed too."""
_DRAWN, _SEED = 12, 0
"""Sizes whose times are measured."""


def rehearse(
    workload: Workload, setting: Setting, compiled: bool = False, device: torch.device = _CPU
) -> Iterator[tuple[LoopLM, torch.optim.Optimizer]]:
    """Training steps on random tokens, as the trainer makes them, one each time the iterator is asked."""
    generator = torch.Generator().manual_seed(0)
    execution = Execution(parts=setting.parts, dtype=setting.dtype, recompute=setting.recompute, compile=compiled)
    model = build_model(workload.model).to(device)
    execution.prepare(model)
    config, plan = TrainingConfig(), LoopPlan(workload.num_loops, workload.first_read)
    optimizer, shape = make_optimizer(model, config), (setting.rows * setting.parts, workload.context_tokens)
    while True:
        tokens = torch.randint(0, workload.model.vocab_size, shape, generator=generator).to(device)
        scored = torch.zeros(shape, dtype=torch.bool, device=device)
        scored[:, : max(1, round(workload.scored_share * shape[1]))] = True
        batch = Batch(tokens, tokens, scored, torch.ones_like(scored))
        optimizer.zero_grad()
        objective = make_objective(batch, plan, config, model.reach)
        draw, rows = partial(Draw, 0), range(len(tokens))
        add_gradient(model, batch, objective, plan, config, execution, draw=draw, rows=rows)
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield model, optimizer


def measured_peak(workload: Workload, setting: Setting) -> int:
    """Bytes of the tensors alive at the worst moment of a step, counted; the step before has filled the moments."""
    steps = rehearse(workload, setting)
    model, optimizer = next(steps)
    moments = (tensor for state in optimizer.state.values() for tensor in state.values())
    gradients = (parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    with LiveBytes(chain(model.parameters(), model.buffers(), moments, gradients)) as live:
        next(steps)
    return live.peak


def measure() -> dict[str, Any]:
    """Everything that docs/data/hardware.json holds."""
    torch.set_num_threads(1)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = (
        "65536"  # the process gives freed tensors back at once, so its size is that of live ones
    )
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        process = pool.apply(_weigh, _BIG)
    profile = detect(threads=1)
    memory = [_memory(name, rows) for name, rows in _SIZES]
    drawn = random.Random(_SEED)
    speed = [line for _ in range(_DRAWN) for line in _speeds(_draw(drawn), profile)]
    return {
        "schema": SCHEMA,
        "circumstances": circumstances(_CPU),
        "profile": as_table(profile),
        "process": process,
        "memory": memory,
        "speed": speed,
    }


def _memory(name: str, rows: int) -> dict[str, Any]:
    workload, setting = find_workload(name), Setting(rows=rows)
    return {
        "size": name,
        "rows": rows,
        "context_tokens": workload.context_tokens,
        "num_loops": workload.num_loops,
        "predicted_bytes": training_peak(workload, setting),
        "measured_bytes": measured_peak(workload, setting),
    }


def _weigh(name: str, rows: int) -> dict[str, Any]:
    """What a process grows by when it makes three steps of a size; runs in a process of its own."""
    torch.set_num_threads(1)
    workload, setting = find_workload(name), Setting(rows=rows)
    before = _resident("VmRSS")
    steps = rehearse(workload, setting)
    for _ in range(3):
        next(steps)
    grown = _resident("VmHWM") - before
    return {"size": name, "rows": rows, "predicted_bytes": training_peak(workload, setting), "measured_bytes": grown}


def _resident(field: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM at most so far."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _draw(drawn: random.Random) -> Workload:
    heads, loops = drawn.choice((2, 4)), drawn.choice((1, 2, 4, 8))
    width = heads * drawn.choice((16, 32, 64))
    model = ModelConfig(
        vocab_size=drawn.choice((16, 512)),
        width=width,
        heads=heads,
        layers=drawn.choice((1, 2)),
        mlp=drawn.choice(("gelu", "swiglu")),
        mlp_width=4 * width,
        positions="rope",
    )
    return Workload(
        name="drawn",
        title="drawn",
        model=model,
        context_tokens=drawn.choice((16, 64, 128)),
        num_loops=loops,
        first_read=loops // 2 + 1,
        batch_size=drawn.choice((1, 8, 16)),
    )


def _speeds(workload: Workload, profile: Profile) -> Iterator[dict[str, Any]]:
    setting = Setting(rows=workload.batch_size)
    steps = rehearse(workload, setting)
    model, _ = next(steps)
    rows, length = workload.batch_size, workload.context_tokens
    tokens = torch.randint(0, workload.model.vocab_size, (rows, length))
    rule = Fixed(workload.num_loops)

    def read() -> KVCache:
        cache = KVCache(workload.num_loops, workload.model.layers)
        model.think(tokens, rule, cache=cache)
        return cache

    cache = read()  # grows by a token at each decoding, so the roofline of its present length is a floor
    for kind, bound, run in (
        ("training", training_speed(workload, profile, setting), lambda: next(steps)),
        ("prefill", prefill_speed(workload, profile, rows), read),
        ("decode", decode_speed(workload, profile, rows), lambda: model.think(tokens[:, :1], rule, cache=cache)),
    ):
        yield _described(workload, rows, kind, bound, best_time(run, _CPU))


def _described(workload: Workload, rows: int, kind: str, bound: Speed, seconds: float) -> dict[str, Any]:
    model = workload.model
    size = {"width": model.width, "layers": model.layers, "mlp": model.mlp, "vocab_size": model.vocab_size}
    run = {"rows": rows, "context_tokens": workload.context_tokens, "num_loops": workload.num_loops, "pass": kind}
    return size | run | {"roofline_s": bound.seconds, "wall": bound.wall, "measured_s": seconds}
