"""Build the kernels for GPUs that this machine does not have, and read what the compiler made of them.

    python -m looplm_kernels.aot build/aot.json [--only loop] [--targets sm_90]

Each row says how many bytes of shared memory, registers and spilled bytes a kernel takes on a target, and which matrix
instructions it uses. Triton compiles without complaint what no block could be launched with, so the limits are checked
here. Results are kept in the output file under a hash of the kernels' sources and Triton's version.
"""

import argparse
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from looplm_kernels.state import Rule
from looplm_kernels.weights import Places, Weights

SPEC = ("kernels.fits-the-profile", "kernels.weights-stay-in-registers")
SCHEMA = 1


@dataclass(frozen=True)
class Target:
    """What a GPU allows one block, and what Triton calls it."""

    backend: str
    arch: int | str
    warp: int
    shared_bytes: int


TARGETS = {
    "sm_80": Target("cuda", 80, 32, 166_912),
    "sm_89": Target("cuda", 89, 32, 101_376),
    "sm_90": Target("cuda", 90, 32, 232_448),
    "sm_120": Target("cuda", 120, 32, 101_376),
    "gfx942": Target("hip", "gfx942", 64, 65_536),
}
"""Shared memory that one block may ask for: CUDA C++ programming guide, technical specifications; CDNA 3 ISA, section 1."""


@dataclass(frozen=True)
class Case:
    """One kernel as it is built: its name, a size, and what it is compiled for."""

    kernel: str
    variant: str
    width: int
    targets: tuple[str, ...]

    @property
    def name(self) -> str:
        """As tables print it."""
        return f"{self.kernel} {self.variant} d={self.width}".replace("  ", " ")


MAIN = ("sm_80", "sm_89", "sm_90", "sm_120", "gfx942")
CUDA = ("sm_89", "sm_90", "sm_120")
CASES = [
    *(Case("loop", "positions", width, MAIN) for width in (64, 128, 256)),
    *(Case("loop", "texts", width, CUDA) for width in (64, 128, 256)),
    Case("loop", "adder", 64, CUDA),
    *(Case("loop_grid", "", width, CUDA) for width in (64, 128, 256)),
    Case("halt_update", "", 256, CUDA),
]


def model(width: int, adder: bool = False) -> Weights:
    """Weights of a size that is built: bf16, SwiGLU, RoPE, heads of 32; or the shipped adder's choices."""
    vocabulary, heads = (15, 4) if adder else (64, width // 32)
    hidden = 4 * width if adder else 32 * (width // 12)
    zeros = lambda *shape: torch.zeros(*shape, dtype=torch.bfloat16)  # noqa: E731
    return Weights(
        embedding=zeros(vocabulary, width),
        gains=zeros(4, width),
        qkv=zeros(3 * width, width),
        out=zeros(width, width),
        up=zeros(hidden, width),
        gate=None if adder else zeros(hidden, width),
        down=zeros(width, hidden),
        signals=zeros(4, width),
        heads=heads,
        rope=not adder,
        places=Places(zeros(11, heads), torch.zeros(vocabulary, dtype=torch.bool), 2, 1) if adder else None,
    )


def source(case: Case) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The Triton function of a case, its constants, and its options."""
    if case.kernel == "loop":
        from looplm_kernels.loop import fused

        adder = case.variant == "adder"
        weights = model(case.width, adder)
        rule = Rule(6 if adder else 12, agree=adder)
        constants = fused.constants(weights, rule, across=case.variant == "texts", interpreted=False)
        return fused.loop_fwd_kernel, constants, fused.options(case.width)
    if case.kernel == "loop_grid":
        from looplm_kernels.loop_grid import fused as grid

        weights = model(case.width)
        return grid.loop_grid_fwd_kernel, grid.constants(weights, Rule(12), 128 if case.width==256 else case.width//2), grid.options(case.width)
    from looplm_kernels.halt_update import fused as halt

    return halt.halt_update_fwd_kernel, halt.constants(64, case.width), halt.options()


def signature(function: Any, constants: dict[str, Any]) -> dict[str, str]:
    """The type of each argument: weights and keys bf16, numbers int32, all else float32."""
    half = {"embedding_ptr", "qkv_ptr", "out_ptr", "gate_ptr", "up_ptr", "down_ptr", "key_ptr", "value_ptr"}
    whole = {
        "barrier_ptr", "is_digit_ptr", "token_ptr", "taken_ptr", "next_ptr", "place_ptr", "run_ptr", "start_ptr", "end_ptr", "active_ptr",
        "barrier_ptr", "partial_token_ptr",
    }  # fmt: skip
    types = {}
    for name in function.arg_names:
        kind = "*bf16" if name in half else "*i32" if name in whole else "*fp32" if name.endswith("_ptr") else "i32"
        types[name] = "constexpr" if name in constants else kind
    return types


def build(case: Case, target_name: str) -> dict[str, Any]:
    """Compile one case for one target, and read shared memory, registers, spills and instructions."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function, constants, options = source(case)
    target = TARGETS[target_name]
    types = signature(function, constants)
    # torch's allocations are aligned to 16 bytes; without saying so this would not be the code that a launch builds
    aligned: dict[tuple[int, ...], list[list[Any]]] = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if types[name].startswith("*")
    }
    began = time.perf_counter()
    kernel = triton.compile(
        ASTSource(fn=function, signature=types, constexprs=constants, attrs=aligned),
        target=GPUTarget(target.backend, target.arch, target.warp),
        options=options,
    )
    row = {
        "kernel": case.name,
        "target": target_name,
        "shared_bytes": kernel.metadata.shared,
        "shared_limit_bytes": target.shared_bytes,
        "warps": kernel.metadata.num_warps,
        "seconds": round(time.perf_counter() - began, 1),
    }
    if target.backend == "cuda":
        ptx = kernel.asm["ptx"]
        row |= ptxas(ptx)
        row["matrix_instructions"] = sorted(set(re.findall(r"(?:wgmma\.mma_async|mma\.sync\.aligned\.m\d+n\d+k\d+)", ptx)))
        if case.kernel == "loop_grid":
            row["loads_before_loop"], row["loads_in_loop"], row["weight_loads_in_loop"] = loads(ptx)
    else:
        text = kernel.asm["amdgcn"]
        row["registers"] = int(re.findall(r"\.vgpr_count:\s*(\d+)", text)[0])
        row["spilled_bytes"] = 4 * int(re.findall(r"\.vgpr_spill_count:\s*(\d+)", text)[0])
        row["matrix_instructions"] = sorted(set(re.findall(r"v_mfma_\w+", text)))
    return row


def ptxas(ptx: str) -> dict[str, int]:
    """Registers and spilled bytes, as the assembler that Triton carries reports them."""
    import triton

    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    found = re.search(r"\.target (sm_(\d+)\w*)", ptx)
    assert found is not None
    blackwell = folder / "ptxas-blackwell"
    tool = blackwell if int(found[2]) >= 90 and blackwell.exists() else folder / "ptxas"
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "kernel.ptx"
        path.write_text(ptx)
        done = subprocess.run(
            [tool, "-v", f"--gpu-name={found[1]}", path, "-o", Path(place) / "kernel.cubin"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    registers = re.search(r"Used (\d+) registers", done.stderr)
    spills = re.search(r"(\d+) bytes spill stores", done.stderr)
    assert registers is not None and spills is not None, done.stderr
    return {"registers": int(registers[1]), "spilled_bytes": int(spills[1])}


def loads(ptx: str) -> tuple[int, int, int]:
    """Global loads before the loop over the loops, inside it, and those inside that read neither activations (.cg) nor the barrier."""
    lines = ptx.splitlines()
    labels = {line.split(":")[0].strip(): at for at, line in enumerate(lines) if re.match(r"\s*\$L\w+:", line)}
    jumps = [(labels[found[1]], at) for at, line in enumerate(lines) if (found := re.search(r"bra(?:\.uni)?\s+(\$L\w+);", line)) and labels.get(found[1], at) < at]
    first, last = max(jumps, key=lambda jump: jump[1] - jump[0])
    inside = [line for line in lines[first:last] if "ld.global" in line]
    return (
        sum("ld.global" in line for line in lines[:first]),
        len(inside),
        sum(not re.search(r"ld\.global\.(cg|gpu\.acquire)", line) for line in inside),
    )


def main() -> int:
    """Build what is asked for and not yet known; exit with 1 if anything is over a budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="kernels whose name starts so")
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    given = parser.parse_args()
    for case in CASES:
        for target in case.targets:
            if case.name.startswith(given.only) and target in given.targets:
                try:
                    print(json.dumps(build(case, target)), flush=True)
                except Exception as e:
                    print(case.name, target, type(e), str(e)[:300], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
