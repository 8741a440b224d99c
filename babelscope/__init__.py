"""BabelScope: does a multilingual transformer think in the same way in every language?

>>> import babelscope as bs
>>> store = bs.open("run.acts")  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from babelscope.errors import BabelScopeError
    from babelscope.workflows import accuracy, analyze, capture, demo, generate, models, prompts_of
    from babelscope.workflows import open_store as open

# Public name -> where it lives. Resolved on first use, so that `import babelscope` costs nothing.
_PUBLIC = {
    "BabelScopeError": "babelscope.errors:BabelScopeError",
    "PromptSet": "babelscope.schema:PromptSet",
    "accuracy": "babelscope.workflows:accuracy",
    "analyze": "babelscope.workflows:analyze",
    "capture": "babelscope.workflows:capture",
    "demo": "babelscope.workflows:demo",
    "generate": "babelscope.workflows:generate",
    "load_analysis": "babelscope.workflows:load_analysis",
    "models": "babelscope.workflows:models",
    "open": "babelscope.workflows:open_store",
    "prompts": "babelscope.workflows:prompts_of",
}

__all__ = [*_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    try:
        module, _, attribute = _PUBLIC[name].partition(":")
    except KeyError:
        raise AttributeError(f"module 'babelscope' has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, "__version__"])
