"""What running a model may leave behind in it: hooks, a changed configuration, functions in place of `forward`."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel


def count_hooks(model: nn.Module) -> int:
    """Forward hooks and pre-hooks on a model and all its parts."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def configurations(model: nn.Module) -> list[Mapping[str, Any]]:
    """Values of every configuration in a model, and which implementations of attention and experts are at work."""
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    # `to_dict` leaves the implementations out.
    hidden = ("_attn_implementation_internal", "_experts_implementation_internal")
    return [{**c.to_dict(), **{name: getattr(c, name, None) for name in hidden}} for c in configs.values()]


def own_forwards(model: nn.Module) -> Mapping[str, Any]:
    """Functions that stand in modules in place of the `forward` of their class, by module path."""
    return {path: vars(m)["forward"] for path, m in model.named_modules() if "forward" in vars(m)}
