"""Where a command computes, and how: a device's profile, or plain options."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from looplm.cli.console import find_device

if TYPE_CHECKING:
    import torch

    from looplm.hardware.profile import Profile


@dataclass(frozen=True)
class DeviceOptions:
    """Where to compute, and how."""

    profile: str | None = None
    """Compute as a device's profile says (spec/profiles, a .toml file, or auto): number format, rows, threads, memory."""
    force: bool = False
    """With a profile: try even what does not fit its memory."""
    device: str | None = None
    """cpu, cuda or mps; default: the profile's, else cpu."""
    threads: int | None = None
    """CPU threads; default: the profile's, else 1. The same seed trains the same weights only with the same number."""

    def find_profile(self) -> "Profile | None":
        """The profile that was asked for."""
        from looplm.errors import InputError
        from looplm.hardware.detect import find_profile

        if self.profile is None and self.force:
            raise InputError("`--force` goes with `--profile`; give one, such as --profile auto.")
        return None if self.profile is None else find_profile(self.profile)

    def take(self, profile: "Profile | None") -> "torch.device":
        """The device; PyTorch keeps to its threads and its share of the memory from now on."""
        from looplm.train.execution import limit_memory

        name = self.device or (profile.device if profile else "cpu")
        threads = self.threads if self.threads is not None else profile.use.threads if profile else 1
        device = find_device(name, threads)
        if profile:
            limit_memory(profile, device)
        return device
