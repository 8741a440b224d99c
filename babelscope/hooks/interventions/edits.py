"""What is put in the place of an activation: nothing, a mean, another activation, or itself and a direction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.schema import Position

if TYPE_CHECKING:
    from babelscope.hooks.interventions.editing import Activations


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A change of one site.

    Parameters
    ----------
    change : callable
        The chosen part of the rows, (row, *unit), to what stands there instead, of the same shape; never in place.
        Rows are the tokens of the position, prompt after prompt.
    position : Position
        Which tokens. A mean picks the tokens that it would average.
    units : tuple of int or None
        Which entries of the first axis of a unit (heads, neurons, dims); None for all.
    counts : tuple of int or None
        Rows that each prompt must have for the change to make sense; None where any number will do.
    """

    change: Callable[[Tensor], Tensor]
    position: Position
    units: tuple[int, ...] | None = None
    counts: tuple[int, ...] | None = None


def zero(position: str = "all", units: Sequence[int] | None = None) -> Edit:
    """Zero ablation. Zero is no neutral value for most sites: prefer `mean` or `resample` where it matters."""
    return Edit(torch.zeros_like, Position.parse(position), _units(units))


def mean(source: "Activations", position: str = "all", units: Sequence[int] | None = None) -> Edit:
    """Mean ablation: every row becomes the mean over the rows of `source`, which are real tokens only.

    The score of a key is averaged over the rows that see that key.

    Parameters
    ----------
    source : Activations
        Of the same site, as from a set of reference prompts.
    """
    chosen = _units(units)
    value = _part(source.values.double().nanmean(0, keepdim=True), chosen)
    return Edit(lambda rows: value.to(rows).expand_as(rows), Position.parse(position), chosen)


def resample(
    source: "Activations", rng: np.random.Generator, position: str = "all", units: Sequence[int] | None = None
) -> Edit:
    """Resample ablation: every row becomes a row of `source` drawn at random, the same in every pass.

    Other than a mean, what a resampled site holds has been seen by the rest of the model. Where `source` has the
    edited prompts themselves, a row may be drawn for itself.
    """
    chosen, seed = _units(units), int(rng.integers(2**63))
    values = _part(source.values, chosen)

    def change(rows: Tensor) -> Tensor:
        drawn = np.random.default_rng(seed).integers(len(values), size=len(rows))
        return values[torch.from_numpy(drawn).to(values.device)].to(rows)

    return Edit(change, Position.parse(position), chosen)


def patch(source: "Activations", units: Sequence[int] | None = None) -> Edit:
    """Activation patching: each row becomes the matching one of `source`.

    Parameters
    ----------
    source : Activations
        Of as many prompts as are edited, prompt by prompt, as the same items in another language. Its position is
        where it is put; each prompt must have as many tokens there as the one it is patched into.
    """
    chosen = _units(units)
    values = _part(source.values, chosen)
    return Edit(lambda rows: values.to(rows), source.position, chosen, source.counts)


def steer(vector: Tensor, scale: float = 1.0, position: str = "all", units: Sequence[int] | None = None) -> Edit:
    """Steering: `scale * vector` is added to every row.

    Parameters
    ----------
    vector : Tensor
        (*unit,), whole even where `units` choose a part of it.
    """
    chosen = _units(units)
    direction = scale * _part(vector[None], chosen)

    def change(rows: Tensor) -> Tensor:
        if direction.shape[1:] != rows.shape[1:]:
            raise BabelScopeError(
                f"a vector of shape {tuple(vector.shape)} was added to rows of shape {tuple(rows.shape[1:])}",
                "give a vector of the shape of one row of the site",
            )
        return rows + direction.to(rows)

    return Edit(change, Position.parse(position), chosen)


def _units(units: Sequence[int] | None) -> tuple[int, ...] | None:
    if units is None:
        return None
    chosen = tuple(int(u) for u in units)
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise BabelScopeError(f"units {chosen} are none, negative or repeated", "name each unit once, counted from 0")
    return chosen


def _part(rows: Tensor, units: tuple[int, ...] | None) -> Tensor:
    if units is None:
        return rows
    if max(units) >= rows.shape[1]:
        raise BabelScopeError(f"there is no unit {max(units)}", f"units are 0 to {rows.shape[1] - 1}")
    return rows[:, list(units)]
