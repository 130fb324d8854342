"""Build the kernels for GPUs that this machine does not have, and hold what the compiler made of them to the profiles.

    python -m looplm_kernels.aot docs/data/builds.json --profiles spec/profiles [--only loop]

Each row says how many bytes of shared memory, registers and spilled bytes a kernel takes on a profile's target, which
matrix instructions it uses, and what is wrong. Triton compiles without complaint what no block could be launched with,
so the limits are checked here. Triton itself keeps what it has built, by a hash of source and options, in
TRITON_CACHE_DIR. Rows of another Triton version stay in the file: run this once with each.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from looplm_kernels.state import TILE, Rule
from looplm_kernels.weights import Places, Weights

SPEC = ("kernels.fits-the-profile", "kernels.weights-stay-in-registers")
SCHEMA = 1
WARP = {"cuda": 32, "hip": 64}


@dataclass(frozen=True)
class Profile:
    """What a hardware profile says about kernels: the table `kernels` of its file."""

    name: str
    backend: str
    arch: int | str
    processors: int
    shared_memory_bytes: int
    registers: int
    spill_bytes: int
    warps: int
    stages: int


def profiles(folder: Path) -> dict[str, Profile]:
    """Of every file in the folder that has such a table, by name."""
    found = {}
    for path in sorted(folder.glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if "kernels" in table:
            limits = dict(table["kernels"])
            backend, arch = limits.pop("target").split(":")
            number = int(arch) if backend == "cuda" else arch
            found[path.stem] = Profile(path.stem, backend, number, table["processors"], **limits)
    return found


@dataclass(frozen=True)
class Case:
    """One kernel as it is built: its name, a size, and on which profiles."""

    kernel: str
    variant: str
    width: int
    profiles: tuple[str, ...]

    @property
    def name(self) -> str:
        """As tables print it."""
        return " ".join(part for part in (self.kernel, self.variant, f"d={self.width}") if part)


CUDA = ("rtx4090", "h200", "rtx5070")
MAIN = (*CUDA, "a100", "mi300x")
CASES = [
    *(Case("loop", "positions", width, MAIN) for width in (64, 128, 256)),
    *(Case("loop", "texts", width, CUDA) for width in (64, 128, 256)),
    Case("loop", "adder", 64, CUDA),
    Case("loop", "prefix", 64, CUDA),
    Case("loop", "prefix", 256, CUDA),
    *(Case("loop_grid", variant, width, CUDA) for variant in ("", "texts") for width in (64, 128, 256)),
    Case("halt_update", "", 256, CUDA),
]


def model(width: int, adder: bool = False) -> Weights:
    """Weights of a size that is built: bf16, SwiGLU, RoPE, heads of 32; or the shipped adder's choices."""
    vocabulary, heads = (15, 4) if adder else (64, width // 32)
    hidden = 4 * width if adder else 32 * (width // 12)

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=torch.bfloat16)

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


def source(case: Case, profile: Profile) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The Triton function of a case, its constants, and its options, as a launch on the profile's GPU would give them."""
    if case.kernel == "loop":
        from looplm_kernels.loop import fused

        adder = case.variant == "adder"
        weights = model(case.width, adder)
        rule = Rule(12, agree=adder, prefix=case.variant == "prefix", epsilon=0.03 if case.variant == "prefix" else math.inf)
        constants = fused.constants(weights, rule, across=case.variant == "texts") | {"STAGES": profile.stages, "INTERP": False}
        return fused.loop_fwd_kernel, constants, fused.options() | {"num_warps": profile.warps, "num_stages": profile.stages}
    if case.kernel == "loop_grid":
        from looplm_kernels.loop_grid import fused as grid

        weights = model(case.width)
        texts = TILE if case.variant == "texts" else 1
        constants = grid.constants(weights, Rule(12), grid.default_programs(weights, profile.processors), texts) | {
            "INTERP": False
        }
        return grid.loop_grid_fwd_kernel, constants, grid.options(case.width)
    from looplm_kernels.halt_update import fused as halt

    return halt.halt_update_fwd_kernel, halt.constants(64, case.width), halt.options()


def signature(function: Any, constants: dict[str, Any]) -> dict[str, str]:
    """The type of each argument: weights and keys bf16, numbers int32, all else float32."""
    half = {"embedding", "qkv", "out", "gate", "up", "down", "key", "value"}
    whole = {"active", "barrier", "end", "has_place", "limit", "next", "place", "run", "start", "taken", "token"}
    types = {}
    for name in function.arg_names:
        what = name.removesuffix("_ptr")
        kind = (
            "fp32"
            if name == "epsilon"
            else "i32"
            if what == name
            else "*bf16"
            if what in half
            else "*i32"
            if what in whole
            else "*fp32"
        )
        types[name] = "constexpr" if name in constants else kind
    return types


def build(case: Case, profile: Profile) -> dict[str, Any]:
    """Compile one case for one profile, and read shared memory, registers, spills and instructions."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function, constants, options = source(case, profile)
    types = signature(function, constants)
    # torch's allocations are aligned to 16 bytes; without saying so this would not be the code that a launch builds
    aligned: dict[tuple[int, ...], list[list[Any]]] = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if types[name].startswith("*")
    }
    kernel = triton.compile(
        ASTSource(fn=function, signature=types, constexprs=constants, attrs=aligned),
        target=GPUTarget(profile.backend, profile.arch, WARP[profile.backend]),
        options=options,
    )
    row: dict[str, Any] = {
        "kernel": case.name,
        "profile": profile.name,
        "target": f"{profile.backend}:{profile.arch}",
        "triton": triton.__version__,
        "warps": kernel.metadata.num_warps,
        "shared_bytes": kernel.metadata.shared,
    }
    if profile.backend == "cuda":
        ptx = kernel.asm["ptx"]
        row |= ptxas(ptx)
        row["matrix_instructions"] = sorted(set(re.findall(r"(?:wgmma\.mma_async|mma\.sync\.aligned\.m\d+n\d+k\d+)", ptx)))
        if case.kernel == "loop_grid":
            row |= {"programs": constants["G"]} | loads(ptx)
    else:
        text = kernel.asm["amdgcn"]
        row["registers"] = int(re.findall(r"\.vgpr_count:\s*(\d+)", text)[0])
        row["spilled_bytes"] = 4 * int(re.findall(r"\.vgpr_spill_count:\s*(\d+)", text)[0])
        row["matrix_instructions"] = sorted(set(re.findall(r"v_mfma_\w+", text)))
    return row | {"problems": problems(case, row, profile)}


def problems(case: Case, row: dict[str, Any], profile: Profile) -> list[str]:
    """What a build takes beyond its profile, or lacks."""
    limits = {
        "shared_bytes": profile.shared_memory_bytes,
        "registers": profile.registers,
        "spilled_bytes": profile.spill_bytes,
    }
    found = [f"{name} {row[name]:,} of at most {most:,}" for name, most in limits.items() if row[name] > most]
    if case.kernel == "loop" and not row["matrix_instructions"]:
        found.append("no matrix instructions")
    if row.get("weight_loads_in_loop"):
        found.append(f"{row['weight_loads_in_loop']} weight loads inside the loop")
    return found


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


def loads(ptx: str) -> dict[str, int]:
    """Loads before the loop over the loops and inside it, and how many inside are neither activations nor the barrier.

    The loop is the longest backward jump. Kernel B reads activations, keys and values past the L1 cache, with .cg, and
    the barrier with .acquire; what is left would be weights.
    """
    lines = ptx.splitlines()
    labels = {line.split(":")[0].strip(): at for at, line in enumerate(lines) if re.match(r"\s*\$L\w+:", line)}
    jumps = [
        (labels[found[1]], at)
        for at, line in enumerate(lines)
        if (found := re.search(r"bra(?:\.uni)?\s+(\$L\w+);", line)) and labels.get(found[1], at) < at
    ]
    first, last = max(jumps, key=lambda jump: jump[1] - jump[0])
    inside = [line for line in lines[first:last] if "ld.global" in line]
    return {
        "loads_before_loop": sum("ld.global" in line for line in lines[:first]),
        "loads_in_loop": len(inside),
        "weight_loads_in_loop": sum(not re.search(r"ld\.global\.(?:cg|gpu\.acquire)", line) for line in inside),
    }


def main(arguments: list[str] | None = None) -> int:
    """Build, write the rows, and exit with 1 if any build is over a limit."""
    parser = argparse.ArgumentParser(prog="python -m looplm_kernels.aot", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="JSON file; rows of other Triton versions in it are kept")
    parser.add_argument("--profiles", type=Path, default=Path("spec/profiles"), help="folder of hardware profiles")
    parser.add_argument("--only", default="", help="kernels whose name starts so")
    given = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET=1 replaces kernels by the interpreter, which compiles nothing: unset it.")
    known = profiles(given.profiles) if given.profiles.is_dir() else {}
    missing = sorted({name for case in CASES for name in case.profiles} - set(known))
    if missing:
        parser.error(f"{given.profiles} has no kernel limits for {', '.join(missing)}.")
    rows = []
    for case in CASES:
        for name in case.profiles:
            if case.name.startswith(given.only):
                row = build(case, known[name])
                rows.append(row)
                print(
                    f"{row['kernel']:24} {name:8} {row['shared_bytes']:7,} B shared {row['registers']:4} registers "
                    f"{row['spilled_bytes']:5} B spilled  {'; '.join(row['problems']) or 'fits'}",
                    flush=True,
                )
    if not rows:
        parser.error(f"no kernel's name starts with {given.only!r}; there are: {', '.join(case.name for case in CASES)}.")
    order = [case.name for case in CASES]
    old = json.loads(given.out.read_text(encoding="utf-8"))["rows"] if given.out.exists() else []
    new = {(row["kernel"], row["profile"], row["triton"]) for row in rows}
    kept = [row for row in old if row["kernel"] in order and (row["kernel"], row["profile"], row["triton"]) not in new]
    merged = sorted(kept + rows, key=lambda row: (row["triton"], order.index(row["kernel"]), MAIN.index(row["profile"])))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"schema": SCHEMA, "rows": merged}, indent=1) + "\n", encoding="utf-8")
    return 1 if any(row["problems"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
