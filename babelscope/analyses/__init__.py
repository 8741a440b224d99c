"""Comparisons of languages from stored activations: NumPy only, every number beside its null."""

from babelscope.analyses.comparison import compare
from babelscope.analyses.recipe import chosen_recipes
from babelscope.analyses.runner import analyze
from babelscope.analyses.study import make_study

__all__ = ["analyze", "chosen_recipes", "compare", "make_study"]
