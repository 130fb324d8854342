"""AdamW, its two groups, and its state by the names of the parameters."""

import torch
from torch import Tensor, nn

from looplm.models.body import Body
from looplm.train.config import TrainingConfig

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter after a step."""


def make_optimizer(model: Body, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on the token embedding and the projections only.

    A group's `share` of the schedule's rate is 1, but for parameters to which the body gives another.

    Source: Loshchilov and Hutter 2019, algorithm 2, arXiv:1711.05101.
    Spec: [training.weight-decay][], [training.rates][].
    """
    matrices, rates = {id(parameter) for parameter in model.decayed()}, model.rates()
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for parameter in model.parameters():
        groups.setdefault((rates.get(parameter, 1.0), id(parameter) in matrices), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "share": share, "weight_decay": config.weight_decay if decayed else 0.0}
            for (share, decayed), parameters in groups.items()
        ],
        lr=config.schedule(0, config.steps),
        betas=(config.beta1, config.beta2),
        foreach=True,
    )


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `PARAMETER|exp_avg` and the like; empty before the first step."""
    return {
        f"{name}|{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_moments(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `moments` gave.

    Raises:
        KeyError: if a parameter is named that the model does not have.
    """
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        parameter_name, _, key = name.rpartition("|")
        parameter = parameters[parameter_name]
        # the count of steps stays on the CPU, as the optimizer made it
        optimizer.state[parameter][key] = value.clone() if value.dim() == 0 else value.to(parameter.device).clone()
