"""BabelScope: does a multilingual transformer think in the same way in every language?"""
__version__ = "0.1.0"
