"""The activation store: a folder of immutable HDF5 shards. Knows no torch."""

from babelscope.activations_store.reader import ActivationStore
from babelscope.activations_store.selection import Selection
from babelscope.activations_store.writer import StoreWriter

__all__ = ["ActivationStore", "Selection", "StoreWriter"]
