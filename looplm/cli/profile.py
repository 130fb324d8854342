"""`looplm profile`: devices as data."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from looplm.cli.console import notes, output

if TYPE_CHECKING:
    from looplm.hardware.profile import Profile


@dataclass(frozen=True)
class ListProfiles:
    """List the shipped profiles."""

    def run(self) -> int:
        """Print one line a device."""
        from looplm.hardware.profile import load_profile, profile_names

        for name in profile_names():
            profile = load_profile(name)
            console, rate = output(), profile.flop_per_s(profile.use.training_dtype) / 1e12
            memory = f"{profile.memory_gib:g} GiB, {profile.memory_gb_per_s:g} GB/s"
            console.print(f"{name:8}  {profile.title}: {memory}, {rate:g} TFLOP/s in {profile.use.training_dtype}")
        return 0


@dataclass(frozen=True)
class ShowProfile:
    """Show a profile: every number with its source."""

    profile: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROFILE")] = "auto"
    """A shipped profile, a .toml file, or auto: this machine."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Print a line a number."""
        from looplm.hardware.detect import find_profile
        from looplm.settings import as_table

        profile = find_profile(self.profile)
        if self.json:
            print(json.dumps(as_table(profile), ensure_ascii=False))
            return 0
        console = output()
        console.print(profile.title, style="bold")
        for key, value in _numbers(profile).items():
            shown = f"{value:.12g}" if isinstance(value, float) else value
            console.print(f"{key} = {shown}  [dim]{profile.source_of(key)}[/]")
        return 0


@dataclass(frozen=True)
class DetectProfile:
    """Propose a profile for this machine: bandwidths and rates are measured, beside the sheet's where one is known."""

    out: Path | None = None
    """Write it to this .toml file, which must not exist, in place of standard output."""
    threads: int = 1
    """CPU threads to measure with."""

    def run(self) -> int:
        """Measure for some seconds, and print the profile."""
        import tomli_w

        from looplm.errors import InputError
        from looplm.files import refuse_existing, write_file
        from looplm.hardware.detect import detect, device_kind, sheet
        from looplm.settings import as_table

        if self.threads < 1:
            raise InputError(f"`--threads` must be at least 1: got {self.threads}.")
        if self.out:
            refuse_existing(self.out)
        found, known = detect(self.threads), sheet(device_kind())
        table = {key: value for key, value in as_table(found).items() if key != "name" and value not in ({}, [])}
        text = tomli_w.dumps(table)
        if self.out:
            write_file(self.out, text.encode())
        else:
            print(text, end="")
        if known:
            notes().print(f"\nMeasured here, and in spec/profiles/{known.name}.toml:")
            for key in ("memory_gb_per_s", "cache_gb_per_s", "float32_tflop_per_s", "bfloat16_tflop_per_s"):
                notes().print(f"{key:22} {getattr(found, key) or '-':>10} {getattr(known, key) or '-':>10}")
        return 0


Action = (
    Annotated[ListProfiles, tyro.conf.subcommand("list", prefix_name=False)]
    | Annotated[ShowProfile, tyro.conf.subcommand("show", prefix_name=False)]
    | Annotated[DetectProfile, tyro.conf.subcommand("detect", prefix_name=False)]
)


@dataclass(frozen=True)
class ProfileCommand:
    """Look up a device, or measure this one."""

    action: Annotated[Action, tyro.conf.OmitArgPrefixes]

    def run(self) -> int:
        """Do what was asked."""
        return self.action.run()


def _numbers(profile: "Profile") -> dict[str, object]:
    """Every key that says something of the device or of runs on it, dotted."""
    from looplm.settings import as_table

    table = as_table(profile)
    plain = {
        key: value
        for key, value in table.items()
        if key not in ("name", "title", "source", "sources", "use", "kernels", "names")
    }
    nested = {f"{part}.{key}": value for part in ("use", "kernels") for key, value in table.get(part, {}).items()}
    return plain | nested
