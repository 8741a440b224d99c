"""Extents of what a store holds, from the headers of a shard alone: no value is read."""

from typing import TYPE_CHECKING

from babelscope.activations_store.shard import group_name
from babelscope.schema import Position
from babelscope.schema.glance import Sample, ranged

if TYPE_CHECKING:
    from babelscope.activations_store.reader import ActivationStore


def unit_shape(store: "ActivationStore", site: str, position: Position) -> tuple[int, ...] | None:
    """Extents of one row of a site; None before the first shard is committed."""
    for language in store.languages:
        for block in store.blocks(language)[:1]:
            with store.shard(language, block) as file:
                return tuple(file[group_name(site, position)]["value"].shape[2:])
    return None


def dimensions(axes: tuple[str, ...], shape: tuple[int, ...] | None) -> str:
    """Axes of one row with their extents: `4 head x 11 summary`."""
    extents = ("?",) * len(axes) if shape is None else shape
    return " x ".join(f"{extent} {axis}" for axis, extent in zip(axes, extents, strict=True))


def shape_sample(store: "ActivationStore") -> Sample:
    """One row for each site and position: layers and extents."""
    rows = []
    for name, layers in store.plan.site_layers().items():
        axes = next(s for s in store.plan.sites if s.name == name).axes
        for position in store.plan.positions:
            each = "rows of an item" if position.ragged else "item"
            row = dimensions(axes, unit_shape(store, name, position))
            rows.append((name, str(position), ranged(layers), f"{row} for each {each}"))
    return Sample(("site", "position", "layers", "holds"), tuple(rows), len(rows))
