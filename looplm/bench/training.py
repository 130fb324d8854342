"""Training on a CPU: RMSNorm beside LayerNorm, and steps of looped models beside those of a plain GPT of the same sizes."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from looplm.bench.hardware import rehearse
from looplm.bench.opponents import PlainGPT
from looplm.bench.timing import Clock, Run, cpu_clock, timed
from looplm.config import ModelConfig
from looplm.hardware.setting import Setting
from looplm.hardware.workload import Workload
from looplm.layers.norm import RMSNorm
from looplm.runs.provenance import circumstances
from looplm.train.workloads import find_workload

SCHEMA = 1
_CPU = torch.device("cpu")
_LOOPS, _ROWS, _TOKENS = 4, 16, 64


def report(count: int, clock: Clock = cpu_clock, compiled: bool = True) -> Iterator[dict[str, Any]]:
    """Where and what with, then a row for the norms, for equal work, and for the recipe `first-light`."""
    yield circumstances(torch.device("cpu")) | {"schema": SCHEMA, "rounds": count}
    yield norms(count, clock)
    for compiles in (False, True) if compiled else (False,):
        yield equal_work(count, clock, compiles)
    yield first_light(count, clock)


def norms(count: int, clock: Clock = cpu_clock, rows: int = 32, tokens: int = 64, width: int = 256) -> dict[str, Any]:
    """Forward and backward pass of each norm, of the same numbers."""
    x = torch.randn(rows, tokens, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    gradient = torch.ones_like(x)
    contenders = {"LayerNorm": nn.LayerNorm(width), "RMSNorm": RMSNorm(width, eps=1e-6), "torch's RMSNorm": nn.RMSNorm(width)}

    def run(norm: nn.Module) -> None:
        x.grad = None
        norm(x).backward(gradient)

    runs: dict[str, Run] = {name: partial(run, norm) for name, norm in contenders.items()}
    pairs = [("RMSNorm", "LayerNorm"), ("torch's RMSNorm", "RMSNorm")]
    return {"what": "norms", "batch": rows, "prompt": tokens, "width": width} | timed(runs, pairs, count, clock, calls=50)


def equal_work(
    count: int, clock: Clock = cpu_clock, compiled: bool = False, width: int = 256, device: torch.device = _CPU
) -> dict[str, Any]:
    """A step of a looped model whose last loop is read, beside one of a GPT with as many layers."""
    model = ModelConfig(
        vocab_size=512,
        width=width,
        heads=8,
        mlp="gelu",
        mlp_width=4 * width,
        positions="rope",
        loop_signal="sinusoidal",
        loop_signal_loops=_LOOPS,
        state_norm=True,
    )
    workload = Workload(
        name="drawn",
        title="drawn",
        model=model,
        context_tokens=_TOKENS,
        num_loops=_LOOPS,
        first_read=_LOOPS,
        batch_size=_ROWS,
    )
    return _against_plain("equal work", workload, _LOOPS, count, clock, compiled, device)


def first_light(count: int, clock: Clock = cpu_clock) -> dict[str, Any]:
    """A step of `first-light` at its mean number of loops, beside one of a GPT of four layers on rows as long."""
    workload = find_workload("first-light")
    return _against_plain("first-light", replace(workload, num_loops=4, first_read=2), 4, count, clock, False)


def _against_plain(
    what: str, workload: Workload, layers: int, count: int, clock: Clock, compiled: bool, device: torch.device = _CPU
) -> dict[str, Any]:
    rows, tokens, model = workload.batch_size, workload.context_tokens, workload.model
    looped = rehearse(workload, Setting(rows=rows), compiled, device)
    plain = _plain_steps(workload, layers, compiled, device)
    runs: dict[str, Run] = {"looped": lambda: next(looped), "plain GPT": lambda: next(plain)}
    sizes = {"what": what, "batch": rows, "prompt": tokens, "width": model.width, "layers": layers, "compiled": compiled}
    return sizes | timed(runs, [("plain GPT", "looped")], count, clock)


def _plain_steps(workload: Workload, layers: int, compiled: bool, device: torch.device) -> Iterator[None]:
    """Steps of a plain GPT with the model's sizes, one each time the iterator is asked."""
    model, generator = workload.model, torch.Generator().manual_seed(0)
    sizes = (layers, model.width, model.heads, model.mlp_width, model.vocab_size, workload.context_tokens)
    plain = PlainGPT(*sizes).to(device)
    loss = torch.compile(plain.loss) if compiled else plain.loss
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.1)
    while True:
        shape = (workload.batch_size, workload.context_tokens)
        tokens = torch.randint(0, model.vocab_size, shape, generator=generator).to(device)
        optimizer.zero_grad()
        loss(tokens, tokens).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        yield
