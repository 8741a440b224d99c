"""Comparisons of languages from stored activations: NumPy only, every number beside its null."""

from babelscope.analyses.comparison import compare
from babelscope.analyses.recipe import chosen_recipes
from babelscope.analyses.references import ceiling, floor
from babelscope.analyses.runner import analyze
from babelscope.analyses.study import make_study

__all__ = ["analyze", "ceiling", "chosen_recipes", "compare", "floor", "make_study"]
