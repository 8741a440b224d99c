"""Comparisons of languages from stored activations: NumPy only, every number beside its null."""

from babelscope.analyses.comparison import compare
from babelscope.analyses.runner import analyze

__all__ = ["analyze", "compare"]
