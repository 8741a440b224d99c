"""How far two computations of the same tensor may differ, per dtype, and how the difference is measured."""

import torch
from torch import Tensor

from babelscope.errors import BabelScopeError

# Laws recompute one linear map or one sum from captured tensors, so only roundings separate the two sides.
# Unit roundoffs are 6e-8, 5e-4 and 4e-3; a product over 10^4 columns adds about their square root in
# float32 (accumulated), none in the half types (accumulated in float32, rounded once). A block rounds at
# most four times. A wrong module is off by 1e-1 or more.
LAW = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-10}

# Whole passes in another batch shape: the roundings of every layer pile up. Measured 3e-7 in float32 and
# 5e-2 in bfloat16 (docs: performance); a leaking mask or a wrong row is off by 3e-1 or more.
PASS = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 1.5e-1, torch.float64: 1e-8}


def largest_error(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute value expected; NaN or infinity where either has one."""
    a, b = found.to(expected.device).double(), expected.double()  # layers may lie on several devices
    if not b.numel():
        return 0.0
    return float((a - b).abs().max()) / (float(b.abs().max()) or 1.0)


def typical_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what was expected: not ruled by a single outlier of half precision."""
    a, b = found.to(expected.device).double(), expected.double()  # layers may lie on several devices
    return float((a - b).norm()) / (float(b.norm()) or 1.0)


def not_finite(model: str, where: str, dtype: torch.dtype) -> BabelScopeError:
    """The error for a model that computes infinities or NaN: no equation says anything of them."""
    name = str(dtype).removeprefix("torch.")
    hint = "check its weights: a damaged file, or a training that diverged, leaves values that are not finite"
    if dtype == torch.float16:
        hint = "float16 ends at 65504: give --dtype bfloat16 or float32; if that does not help, check its weights"
    return BabelScopeError(f"{model} computes values that are not finite in {name}; the first are in {where}", hint)


def agree(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are the same up to the roundings of one block."""
    return found.shape == expected.shape and largest_error(found, expected) <= LAW[expected.dtype]
