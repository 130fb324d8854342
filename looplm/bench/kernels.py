"""Kernels against the same loop in torch: eager, compiled, and in a CUDA graph. Needs a CUDA GPU; see `looplm bench kernels`.

One call decodes one token of every text after a prompt of 32 tokens. How long tokens think is fixed by a table, so that
speed does not depend on what was trained.
"""

import importlib
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from looplm_kernels.loop import loop
from looplm_kernels.loop_grid import loop_grid
from looplm_kernels.state import TILE, Rule, State, empty
from looplm_kernels.weights import Weights

from looplm.bench.timing import Clock, Run, Spread, cuda_clock, ratio, rounds
from looplm.bench.torch_loop import TorchLoop
from looplm.errors import InputError
from looplm.runs.provenance import commit
from looplm.think.backends import Backend

SCHEMA = 1
PROMPT, LOOPS, VOCABULARY, GROUP = 32, 12, 64, 4
"""Tokens of a prompt; most loops; tokens; loops between two looks of the host in a halting CUDA graph."""
MEAN_LOOPS = 5
AGREEMENT = 0.95
"""Share of texts in which a contender must give the reference's token and loops: nothing else is timed."""


@dataclass(frozen=True)
class Setting:
    """What is decoded: sizes, and how long tokens think."""

    width: int
    batch: int
    halting: bool
    """Loops by a table with a mean of 5 of 12; else 12."""


def draw(setting: Setting, device: str, dtype: torch.dtype, loops: int = LOOPS) -> tuple[Weights, State]:
    """A model of this size with drawn weights, and texts of which the prompt has been read."""
    generator = torch.Generator().manual_seed(0)
    width, hidden = setting.width, 32 * (setting.width // 12)

    def matrix(out: int, into: int) -> torch.Tensor:
        return (torch.randn(out, into, generator=generator) / math.sqrt(into)).to(device, dtype)

    weights = Weights(
        embedding=matrix(VOCABULARY, width) * math.sqrt(width),
        gains=torch.ones(4, width, device=device, dtype=dtype),
        qkv=matrix(3 * width, width),
        out=matrix(width, width) / 2,
        up=matrix(hidden, width),
        gate=matrix(hidden, width),
        down=matrix(width, hidden) / 2,
        signals=matrix(4, width),
        heads=max(1, width // 32),
        rope=True,
    )
    state = empty(weights, setting.batch, PROMPT + 1, loops)
    state.tokens.copy_(torch.randint(0, VOCABULARY, state.tokens.shape, generator=generator))
    if setting.halting:
        share = (MEAN_LOOPS - 1) / (LOOPS - 1)  # 1 + Binomial(11, share)
        table = 1 + (torch.rand(setting.batch, LOOPS - 1, generator=generator) < share).sum(1)
        state.limit[:, PROMPT] = table.int().to(device)
    start = torch.zeros(setting.batch, dtype=torch.int32, device=device)
    backend = "triton" if device == "cuda" else "reference"
    loop(weights, state, start, start + PROMPT, Rule(loops), backend=backend)
    return weights, state


def contenders(
    weights: Weights, state: State, setting: Setting, loops: int = LOOPS
) -> dict[str, tuple[Run, Callable[[], Any]]]:
    """Each way of decoding the token: what to time, and what then reads its tokens and loops."""
    rule = Rule(loops)
    torch_loop = TorchLoop(weights, state, PROMPT, rule)

    def by(step: Callable[[int, int], object], group: int) -> Run:
        def run() -> None:
            for first in range(0, loops, group):
                if setting.halting and first and not bool(torch_loop.active.any()):
                    break
                step(first, min(first + group, loops))

        return run

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        return torch_loop.guess.clone(), torch_loop.taken.clone()

    start = torch.full((setting.batch,), PROMPT, dtype=torch.int32, device=state.tokens.device)
    end = start + 1

    def kept() -> tuple[torch.Tensor, torch.Tensor]:
        return state.next_token[:, PROMPT].clone(), state.loops_taken[:, PROMPT].clone()

    made: dict[str, tuple[Run, Callable[[], Any]]] = {"eager": (by(torch_loop.loops, 1), found)}
    if state.tokens.is_cuda:
        compiled = compile_whole(torch_loop.loops)
        made["compiled"] = (by(compiled, GROUP), found)
        made["CUDA graph"] = (by(_graphs(compiled, torch_loop, loops), GROUP), found)
        across = setting.batch > 1
        made["A"] = (lambda: loop(weights, state, start, end, rule, backend="triton", across=across), kept)
        if setting.batch <= TILE:
            made["B"] = (lambda: loop_grid(weights, state, start, end, rule, backend="triton"), kept)
    made["reference"] = (lambda: loop(weights, state, start, end, rule), kept)
    return made


def compile_whole(function: Callable[[int, int], None], backend: str = "inductor") -> Callable[[int, int], None]:
    """Compiled in one piece with nothing kept of earlier sizes; what could not be compiled raises, and never runs eagerly."""
    torch._dynamo.reset()

    def run(first: int, last: int) -> None:
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            compiled(first, last)

    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend=backend)
    return run


def _graphs(step: Callable[[int, int], object], torch_loop: TorchLoop, loops: int) -> Callable[[int, int], object]:
    """A captured CUDA graph for each group of loops."""
    graphs = {}
    for first in range(0, loops, GROUP):
        step(first, min(first + GROUP, loops))  # compiled before it is captured
        torch.cuda.synchronize()
        graphs[first] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[first]):
            step(first, min(first + GROUP, loops))
    return lambda first, last: graphs[first].replay()


@torch.no_grad()
def measure(setting: Setting, device: str, dtype: torch.dtype, clock: Clock, count: int, calls: int) -> dict[str, Any]:
    """One row of the report: seconds of a call, and ratios, of everything that computed the right thing."""
    weights, state = draw(setting, device, dtype)
    all_runs = contenders(weights, state, setting)
    run, read = all_runs.pop("reference")
    run()
    tokens, loops = read()
    agreement = {}
    for name, (run, read) in all_runs.items():
        run()
        theirs = read()
        agreement[name] = float(((theirs[0] == tokens) & (theirs[1] == loops)).float().mean())
    sound = {name: run for name, (run, _) in all_runs.items() if agreement[name] >= AGREEMENT}
    seconds = rounds(sound, count, calls, clock)
    joules = {name: _joules(run) for name, run in sound.items()} if device == "cuda" else {}
    flop, moved = work(weights, loops)
    pairs = [(slow, fast) for fast in ("A", "B") for slow in ("eager", "compiled", "CUDA graph", "A") if slow != fast]
    return asdict(setting) | {
        "mean_loops": float(loops.float().mean()),
        "agreement": agreement,
        "seconds": {name: asdict(Spread.of(values)) for name, values in seconds.items()},
        "microseconds_per_token": {name: 1e6 * Spread.of(v).median / setting.batch for name, v in seconds.items()},
        "tokens_per_s": {name: setting.batch / Spread.of(v).median for name, v in seconds.items()},
        "joules_per_token": {name: j / setting.batch for name, j in joules.items() if j is not None},
        "tflop_per_s": {name: flop / Spread.of(v).median / 1e12 for name, v in seconds.items()},
        "tile_gb_per_s": {name: moved / Spread.of(v).median / 1e9 for name, v in seconds.items()},
        "ratios": {
            f"{slow} / {fast}": asdict(spread) | {"decided": spread.decided}
            for slow, fast in pairs
            if slow in seconds and fast in seconds
            for spread in [ratio(seconds, slow, fast)]
        },
    }


@torch.no_grad()
def measure_adder(
    device: str, backends: tuple[Backend, Backend], clock: Clock, count: int, calls: int, sums: int = 512
) -> dict[str, Any]:
    """The shipped adder's own halting: the same sums solved on a slow and on a fast backend, all of generating included."""
    import looplm

    adder = looplm.load("adder", device)
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(10**7, 10**8, (sums, 2), generator=generator).tolist()
    problems = [f"{a}+{b}" for a, b in pairs]
    solved = {backend: looplm.solve(adder, problems, backend=backend) for backend in backends}
    alike = [a.answer == b.answer for a, b in zip(*solved.values(), strict=True)]
    tokens = sum(len(solution.tokens) for solution in solved[backends[0]])
    runs: dict[str, Run] = {backend: partial(looplm.solve, adder, problems, backend=backend) for backend in backends}
    seconds = rounds(runs, count, calls, clock)
    spread = ratio(seconds, *backends)
    return {
        "adder": True,
        "sums": sums,
        "agreement": sum(alike) / len(alike),
        "mean_loops": sum(sum(s.loops_taken) for s in solved[backends[0]]) / tokens,
        "microseconds_per_token": {way: 1e6 * Spread.of(v).median / tokens for way, v in seconds.items()},
        "ratios": {" / ".join(backends): asdict(spread) | {"decided": spread.decided}},
    }


def work(weights: Weights, loops: torch.Tensor) -> tuple[float, float]:
    """FLOPs of the loops that the tokens of texts took, and the bytes that tiles of 16 of them must read for it.

    A tile goes on until its slowest row has halted, and reads the weights once a loop.

    Spec: [kernels.flops][], [kernels.bytes][].
    """
    matrices = (weights.qkv, weights.out, weights.up, weights.gate, weights.down, weights.embedding)
    numbers = sum(matrix.numel() for matrix in matrices if matrix is not None)
    read = 2 * weights.width * (PROMPT + 1)  # keys and values of the prompt and of the token itself
    flop = int(loops.sum()) * 2 * (numbers + read)  # every number that is read is multiplied once, and added
    size = weights.embedding.itemsize
    moved = sum(int(tile.max()) * size * (numbers + len(tile) * read) for tile in loops.split(TILE))
    return float(flop), float(moved)


def report(widths: tuple[int, ...], batches: tuple[int, ...], count: int = 20, calls: int = 200) -> Iterator[dict[str, Any]]:
    """The machine, then a row for each setting.

    Raises:
        InputError: without a CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise InputError(
            "`looplm bench kernels` needs a CUDA GPU, and there is none here. `make aot` shows what the kernels take on one, "
            "and the tests run them in Triton's interpreter."
        )
    import triton

    yield {
        "schema": SCHEMA,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "loops": LOOPS,
        "prompt": PROMPT,
        "rounds": count,
        "calls": calls,
    }
    for width in widths:
        for batch in batches:
            for halting in (False, True):
                yield measure(Setting(width, batch, halting), "cuda", torch.bfloat16, cuda_clock, count, calls)
    yield measure_adder("cuda", ("torch", "triton"), cuda_clock, max(3, count // 4), 1)


def _joules(run: Run, least_s: float = 1.0) -> float | None:
    """What the whole GPU takes for a call, idle power included, by its own counter; None where it has none or none is read."""
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
        torch.cuda.synchronize()
        began, before, calls = time.perf_counter(), pynvml.nvmlDeviceGetTotalEnergyConsumption(handle), 0
        while time.perf_counter() - began < least_s:  # the counter moves some ten times a second
            for _ in range(20):
                run()
            calls += 20
            torch.cuda.synchronize()
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before) / 1000 / calls
    except Exception:  # no such package, library, counter or right: whatever it is, there is no number
        return None
