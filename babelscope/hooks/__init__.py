"""The torch side of capture: models, their anatomy, sites with laws, backends and the self-test."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from babelscope.hooks.adapters import merged_copy
    from babelscope.hooks.anatomy import Anatomy
    from babelscope.hooks.blocks import run_plan
    from babelscope.hooks.chat import as_chat
    from babelscope.hooks.context import check_lengths
    from babelscope.hooks.laws import check_laws
    from babelscope.hooks.models import LoadedModel, as_loaded, hashed_now, load_model
    from babelscope.hooks.placement import device_name
    from babelscope.hooks.planning import estimate, make_plan
    from babelscope.hooks.selftest import self_test

# Resolved on first use, so that listing the backends does not import torch.
_PUBLIC = {
    "Anatomy": "anatomy",
    "LoadedModel": "models",
    "as_chat": "chat",
    "as_loaded": "models",
    "check_laws": "laws",
    "check_lengths": "context",
    "device_name": "placement",
    "estimate": "planning",
    "hashed_now": "models",
    "load_model": "models",
    "make_plan": "planning",
    "merged_copy": "adapters",
    "run_plan": "blocks",
    "self_test": "selftest",
}

__all__ = [
    "Anatomy",
    "LoadedModel",
    "as_chat",
    "as_loaded",
    "check_laws",
    "check_lengths",
    "device_name",
    "estimate",
    "hashed_now",
    "load_model",
    "make_plan",
    "merged_copy",
    "run_plan",
    "self_test",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'babelscope.hooks' has no attribute {name!r}")
    return getattr(importlib.import_module(f"babelscope.hooks.{_PUBLIC[name]}"), name)
