"""BabelScope asks whether a multilingual transformer thinks in the same way in every language.

>>> import babelscope as bs
>>> store = bs.open("run.acts")  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from babelscope.errors import BabelScopeError as BabelScopeError
    from babelscope.schema import PromptSet as PromptSet
    from babelscope.workflows import ablate as ablate
    from babelscope.workflows import accuracy as accuracy
    from babelscope.workflows import analyze as analyze
    from babelscope.workflows import analyze_steps as analyze_steps
    from babelscope.workflows import capture as capture
    from babelscope.workflows import classify as classify
    from babelscope.workflows import compare as compare
    from babelscope.workflows import demo as demo
    from babelscope.workflows import evaluate as evaluate
    from babelscope.workflows import generate as generate
    from babelscope.workflows import item_gaps as item_gaps
    from babelscope.workflows import load_analysis as load_analysis
    from babelscope.workflows import load_probes as load_probes
    from babelscope.workflows import open_steps as open_steps
    from babelscope.workflows import open_store as open
    from babelscope.workflows import probe as probe
    from babelscope.workflows import prompts_of as prompts
    from babelscope.workflows import report as report
    from babelscope.workflows import train as train
    from babelscope.workflows import train_chain as train_chain

# Public name -> where it lives. Resolved on first use, so that `import babelscope` costs nothing.
_PUBLIC = {
    "BabelScopeError": "babelscope.errors:BabelScopeError",
    "PromptSet": "babelscope.schema:PromptSet",
    "ablate": "babelscope.workflows:ablate",
    "accuracy": "babelscope.workflows:accuracy",
    "analyze": "babelscope.workflows:analyze",
    "analyze_steps": "babelscope.workflows:analyze_steps",
    "capture": "babelscope.workflows:capture",
    "classify": "babelscope.workflows:classify",
    "compare": "babelscope.workflows:compare",
    "demo": "babelscope.workflows:demo",
    "evaluate": "babelscope.workflows:evaluate",
    "generate": "babelscope.workflows:generate",
    "item_gaps": "babelscope.workflows:item_gaps",
    "load_analysis": "babelscope.workflows:load_analysis",
    "load_probes": "babelscope.workflows:load_probes",
    "open": "babelscope.workflows:open_store",
    "open_steps": "babelscope.workflows:open_steps",
    "probe": "babelscope.workflows:probe",
    "prompts": "babelscope.workflows:prompts_of",
    "report": "babelscope.workflows:report",
    "train": "babelscope.workflows:train",
    "train_chain": "babelscope.workflows:train_chain",
}

__all__ = [
    "BabelScopeError",
    "PromptSet",
    "ablate",
    "accuracy",
    "analyze",
    "analyze_steps",
    "capture",
    "classify",
    "compare",
    "demo",
    "evaluate",
    "generate",
    "item_gaps",
    "load_analysis",
    "load_probes",
    "open",
    "open_steps",
    "probe",
    "prompts",
    "report",
    "train",
    "train_chain",
]


def __getattr__(name: str) -> Any:
    try:
        module, _, attribute = _PUBLIC[name].partition(":")
    except KeyError:
        raise AttributeError(f"module 'babelscope' has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, "__version__"])
