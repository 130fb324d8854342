"""Devices as data: a file in spec/profiles, or one of the user's own in ten lines.

    title = "my card"          kind = "cuda"             source = "its data sheet"
    memory_gib = 16            memory_gb_per_s = 448     power_w = 160
    float32_tflop_per_s = 22   [use]                     batch_size = 64

Units stand at the end of the keys: GiB and MiB are binary, GB and TFLOP decimal, as data sheets have them.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from looplm.errors import InputError
from looplm.resources import resource
from looplm.settings import STRICT, parse, read_toml

_Kind = TypeVar("_Kind")
_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1)]
Precision = Literal["float32", "bfloat16"]
"""Of the products of matrices; a training step's weights, gradients and moments are always float32."""
SIZES: dict[Precision, int] = {"float32": 4, "bfloat16": 2}
"""Bytes of a number."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Use:
    """How a run is made on the device."""

    training_dtype: Precision = "float32"
    generation_dtype: Precision = "float32"
    backends: tuple[Literal["triton", "torch", "reference"], ...] = ("torch",)
    """Of the looped block in generation, best first."""
    compile: bool = False
    threads: _Count = 1
    """Of the CPU."""
    batch_size: _Count = 64
    """Most rows at a time; a larger batch is cut into parts."""
    num_loops: _Count = 12
    """What plans and charts go up to, where a size does not say."""
    memory_share: float = Field(default=0.9, gt=0, le=1)
    """Of the memory, that one run may take."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class KernelBudget:
    """What kernels are built for on the device, and what they may use."""

    target: str = Field(pattern=r"^(cuda:\d+|hip:gfx\w+)$")
    """Such as cuda:90, for compute capability 9.0, or hip:gfx942."""
    shared_memory_bytes: _Count
    """That one block, or work-group, can have."""
    registers: _Count
    """Of one thread."""
    spill_bytes: int = Field(ge=0)
    """Per thread, that a build may spill."""
    warps: _Count
    stages: _Count


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Profile:
    """One device.

    Spec: [hardware.profile-checked][], [hardware.units][].
    """

    name: str
    title: str
    kind: Literal["cpu", "cuda", "rocm", "mps"]
    source: str
    """Of every number that has none of its own in `sources`."""
    names: tuple[str, ...] = ()
    """Ends of what the device calls itself, by which `auto` knows it."""
    processors: _Count | None = None
    """Multiprocessors, compute units or cores."""
    memory_gib: _Positive
    memory_gb_per_s: _Positive
    cache_mib: _Positive | None = None
    """The last cache before the memory; None: not known, and none is counted on."""
    cache_gb_per_s: _Positive | None = None
    float32_tflop_per_s: _Positive
    """Dense, without tensor cores where PyTorch does not use them for float32."""
    bfloat16_tflop_per_s: _Positive | None = None
    """Dense, accumulated in float32; None: no faster than float32."""
    power_w: _Positive | None = None
    """Greatest, of the board or the whole computer."""
    use: Use = Field(default_factory=Use)
    kernels: KernelBudget | None = None
    sources: dict[str, str] = Field(default_factory=dict)
    """Key → where its number comes from; `use` and `kernels.KEY` are allowed too."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = {
            *_fields(Profile),
            *(f"use.{key}" for key in _fields(Use)),
            *(f"kernels.{key}" for key in _fields(KernelBudget)),
        }
        strangers = sorted(set(self.sources) - known)
        if strangers:
            raise ValueError(f"`sources` names what is no key of a profile: {', '.join(strangers)}")
        if self.cache_gb_per_s and not self.cache_mib:
            raise ValueError("`cache_gb_per_s` is given without `cache_mib`")
        return self

    @property
    def memory_bytes(self) -> int:
        """All of it."""
        return int(self.memory_gib * 2**30)

    @property
    def usable_bytes(self) -> int:
        """What one run may take."""
        return int(self.memory_bytes * self.use.memory_share)

    @property
    def cache_bytes(self) -> int:
        """0 where it is not known."""
        return int((self.cache_mib or 0) * 2**20)

    @property
    def device(self) -> str:
        """PyTorch's name for the kind of device."""
        return "cuda" if self.kind == "rocm" else self.kind

    def flop_per_s(self, dtype: Precision) -> float:
        """Peak rate of products in this format."""
        rates = {"float32": self.float32_tflop_per_s, "bfloat16": self.bfloat16_tflop_per_s or self.float32_tflop_per_s}
        return rates[dtype] * 1e12

    def source_of(self, key: str) -> str:
        """Where a number comes from.

        Spec: [hardware.sources][].
        """
        return self.sources.get(key) or self.sources.get(key.split(".")[0]) or self.source


def profile_names() -> list[str]:
    """Names of the profiles in spec/profiles, sorted."""
    return sorted(path.stem for path in resource("spec/profiles").glob("*.toml"))


def shipped_devices() -> list[Profile]:
    """Every shipped profile of a device that exists, the fastest memory first."""
    found = [load_profile(name) for name in profile_names() if name != "tiny"]
    return sorted(found, key=lambda profile: -profile.memory_gb_per_s)


def load_profile(name_or_path: str) -> Profile:
    """The profile of this name, or the one in a file that ends in .toml.

    Raises:
        InputError: if there is none, or with every mistake in it.

    Spec: [hardware.profile-checked][].
    """
    if name_or_path.endswith(".toml"):
        return parse_file(Profile, Path(name_or_path))
    if name_or_path not in profile_names():
        raise InputError(
            f"There is no profile {name_or_path!r}; there are: {', '.join(profile_names())}, auto, or a .toml file."
        )
    return parse_file(Profile, resource("spec/profiles") / f"{name_or_path}.toml")


def parse_file(kind: type[_Kind], path: Path) -> _Kind:
    """A checked dataclass from a TOML file; its `name` is the file's."""
    return parse(kind, {"name": path.stem, **read_toml(path)}, where=str(path))


def _fields(kind: type) -> list[str]:
    names: dict[str, Any] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return list(names)
