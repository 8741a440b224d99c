"""Bands of layers, by where in the model they lie."""

from collections.abc import Sequence

FIRST, MIDDLE, LAST = "first third", "middle third", "last third"


def layer_thirds(layers: Sequence[int], n_layers: int) -> dict[str, list[int]]:
    """Layers of each third of a model of `n_layers`, by the middle of the layer; a third may have none."""
    found: dict[str, list[int]] = {FIRST: [], MIDDLE: [], LAST: []}
    for layer in layers:
        place = (layer + 0.5) / n_layers
        found[FIRST if place < 1 / 3 else MIDDLE if place < 2 / 3 else LAST].append(layer)
    return found
