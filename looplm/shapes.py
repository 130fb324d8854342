"""Shapes and dtypes in signatures, checked in tests and free for users.

    def inject(h: Annotated[Tensor, Float("B T D")], x0: Annotated[Tensor, Float("B T D")]) -> ...

A word is an axis whose size must agree wherever the word stands in one call (arguments and result); a number is that
size; `...` in front stands for any leading axes. typeguard does the checking; the test suite switches it on.
Axes: `B` batch, `T` tokens, `S` tokens that may be read (cached and new), `D` width, `H` heads, `K` head dim,
`V` vocabulary, `L` loops, `N` problems, `M` decimal places.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor


class Shape:
    """A tensor with these axes, of any dtype."""

    dtype_name = "any dtype"

    def __init__(self, axes: str) -> None:
        self.axes = axes

    def accepts(self, dtype: torch.dtype) -> bool:
        """Whether a tensor may have this dtype."""
        return True

    def problem(self, value: object, sizes: dict[str, int]) -> str | None:
        """What is wrong with `value`, given the sizes bound so far in this call; binds the new ones."""
        if not isinstance(value, Tensor):
            return "is not a torch.Tensor"
        if not self.accepts(value.dtype):
            return f"has dtype {value.dtype}, expected {self.dtype_name}"
        names, shape = self.axes.split(), tuple(value.shape)
        if names[:1] == ["..."]:
            names = names[1:]
            shape = shape[len(shape) - len(names) :] if len(shape) >= len(names) else shape
        if len(shape) != len(names):
            return f"has shape {tuple(value.shape)}, expected [{self.axes}]"
        for name, size in zip(names, shape, strict=True):
            expected = int(name) if name.isdigit() else sizes.setdefault(name, size)
            if expected != size:
                return f"has axis {name}={size}, but {name}={expected} elsewhere in this call (expected [{self.axes}])"
        return None


class Float(Shape):
    """A floating-point tensor with these axes."""

    dtype_name = "a floating-point dtype"

    def accepts(self, dtype: torch.dtype) -> bool:
        """Whether a tensor may have this dtype."""
        return dtype.is_floating_point


class Int(Shape):
    """An int64 tensor with these axes."""

    dtype_name = "torch.int64"

    def accepts(self, dtype: torch.dtype) -> bool:
        """Whether a tensor may have this dtype."""
        return dtype is torch.int64


class Bool(Shape):
    """A bool tensor with these axes."""

    dtype_name = "torch.bool"

    def accepts(self, dtype: torch.dtype) -> bool:
        """Whether a tensor may have this dtype."""
        return dtype is torch.bool


# One entry per call that is being checked. typeguard's memo stands for the call; it is held, not only its id, because
# an id is reused once its object is gone. Calls nest, so several are alive at a time; old ones are dropped.
_CALLS_KEPT = 512
_calls: OrderedDict[int, tuple[Any, dict[str, int]]] = OrderedDict()


def _sizes_of_call(memo: Any) -> dict[str, int]:
    kept, sizes = _calls.get(id(memo), (None, {}))
    if kept is not memo:
        sizes = {}
        _calls[id(memo)] = (memo, sizes)
        if len(_calls) > _CALLS_KEPT:
            _calls.popitem(last=False)
    return sizes


def enable_checks(package: str = "looplm") -> None:
    """Check every shape in `package` from now on; call it before the package is imported (tests do)."""
    import typeguard

    def lookup(origin: Any, args: Any, extras: tuple[Any, ...]) -> Any:
        shapes = [extra for extra in extras if isinstance(extra, Shape)]
        if origin is not Tensor or not shapes:
            return None

        def check(value: Any, origin_type: Any, args: Any, memo: Any) -> None:
            problem = shapes[0].problem(value, _sizes_of_call(memo))
            if problem:
                raise typeguard.TypeCheckError(problem)

        return check

    typeguard.checker_lookup_functions.insert(0, lookup)
    typeguard.install_import_hook([package])
