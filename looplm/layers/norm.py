"""RMSNorm and LayerNorm."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from looplm.config import ModelConfig
from looplm.shapes import Float


def make_norm(config: ModelConfig) -> nn.Module:
    """RMSNorm or LayerNorm over the width, as the config says.

    Spec: [architecture.rms-norm][], [architecture.layer-norm][].
    """
    if config.norm == "rms":
        return RMSNorm(config.width, eps=config.norm_epsilon)
    return nn.LayerNorm(config.width, eps=config.norm_epsilon)


class RMSNorm(nn.RMSNorm):
    r"""$x / \sqrt{\mathrm{mean}(x^2) + \epsilon}$, times a trained gain.

    Source: Zhang and Sennrich 2019, equation 4, arXiv:1910.07467. We add $\epsilon$, `norm_epsilon`, to the mean square.
    Spec: [architecture.rms-norm][].
    """

    def forward(self, x: Annotated[Tensor, Float("... D")]) -> Annotated[Tensor, Float("... D")]:
        """Each token by itself; where torch makes its backward pass of many kernels, by our own."""
        ours = x.requires_grad and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
        if ours and x.dtype == self.weight.dtype and not torch.compiler.is_compiling():
            y: Tensor = _Normed.apply(x, self.weight, self.eps)
            return y
        return super().forward(x)


class _Normed(torch.autograd.Function):
    """RMSNorm that keeps the normed input alone for its backward pass, which is four passes over it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.rsqrt(norm * norm / x.shape[-1] + eps)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, scale, weight = ctx.saved_tensors
        each = grad * normed
        along = (each @ weight)[..., None] / len(weight)
        return torch.addcmul(grad * weight, normed, along, value=-1).mul_(scale), each.flatten(0, -2).sum(0), None
