"""Edits at work: hooks that replace the tensor of a site on its way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from babelscope.errors import BabelScopeError
from babelscope.hooks.backends.torch import forward
from babelscope.hooks.interventions.batch import PromptBatch
from babelscope.hooks.interventions.edits import Edit
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import Place, by_prompt, entering, leaving, tapped
from babelscope.hooks.tap import place_of, stack_of, tap_of
from babelscope.schema import Position, Site

K = TypeVar("K")


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """Rows of one site at one position, one for each token.

    Parameters
    ----------
    values : Tensor
        (row, *unit), prompt after prompt; real tokens only.
    position : Position
    counts : tuple of int
        Rows of each prompt.
    """

    values: Tensor
    position: Position
    counts: tuple[int, ...]


def activations(
    loaded: LoadedModel, batch: PromptBatch, sites: Sequence[Site], position: str = "all"
) -> dict[Site, Activations]:
    """Run a batch and keep some sites, as sources of edits.

    Unlike captured rows these are never averaged: a position that is a mean gives the tokens it would average.

    Raises
    ------
    BabelScopeError
        For a site that this model lacks, or a position that picks nothing.
    """
    where = {site: batch.where(Position.parse(position), site.stack) for site in sites}
    places = {site: place_of(loaded.anatomy, site) for site in sites}
    found: dict[Site, Activations] = {}

    def keep(site: Site, x: Tensor) -> None:
        rows, columns, counts = where[site]
        shaped = _shaped(loaded, batch, site, x)
        picked = shaped[rows.to(x.device), columns.to(x.device)]  # indexing with tensors copies
        found[site] = Activations(picked, Position.parse(position), counts)

    with torch.no_grad(), tapped(places, keep):
        forward(loaded, batch.tokens, head=False)
    return found


@contextmanager
def edited(loaded: LoadedModel, edits: Mapping[Site, Edit], batch: PromptBatch) -> Iterator[None]:
    """Inside, the model computes with edited activations; made for passes of this very batch.

    Contexts may be nested; at one site the outer edit comes first. Every hook is gone on leaving.

    Raises
    ------
    BabelScopeError
        For a site that the model lacks or that cannot be edited, a position or unit that is not there, or a source
        that does not match the batch.
    """
    places = {site: place_of(loaded.anatomy, site) for site in edits}
    where = {site: batch.where(edit.position, site.stack) for site, edit in edits.items()}
    for site, edit in edits.items():
        _check(loaded, site, edit, where[site][2])

    def change(site: Site, x: Tensor) -> Tensor:
        rows, columns, _ = where[site]
        shaped = _shaped(loaded, batch, site, x)
        return _replaced(shaped, edits[site], rows.to(x.device), columns.to(x.device), site).reshape(x.shape)

    with replacing(places, change):
        yield


def _shaped(loaded: LoadedModel, batch: PromptBatch, site: Site, x: Tensor) -> Tensor:
    """(prompt, token, *unit) with all the elements of `x`, so that it can be shaped back."""
    shaped = tap_of(site.kind).reshape(
        by_prompt(x, batch.tokens.mask_of(site.stack)), stack_of(loaded.anatomy, site), site.layer or 0
    )
    if shaped.numel() != x.numel():
        raise BabelScopeError(
            f"site {site} of {loaded.anatomy.name} cannot be edited: it is a part of a larger tensor",
            "edit another site; resid.pre and resid.post exist in every model",
        )
    return shaped


def _replaced(x: Tensor, edit: Edit, rows: Tensor, columns: Tensor, site: Site) -> Tensor:
    """`x` with the chosen part of the chosen rows changed; a new tensor, through which gradients flow."""
    picked = x[rows, columns]
    units = None if edit.units is None else torch.tensor(edit.units, device=x.device)
    part = picked if units is None else picked[:, units]
    new = edit.change(part).to(x)
    if new.shape != part.shape:
        raise BabelScopeError(
            f"the edit of {site} turned rows of shape {tuple(part.shape)} into {tuple(new.shape)}",
            "an edit keeps the shape of what it is given",
        )
    return x.index_put((rows, columns), new if units is None else picked.index_copy(1, units, new))


def _check(loaded: LoadedModel, site: Site, edit: Edit, counts: tuple[int, ...]) -> None:
    n_units = tap_of(site.kind).unit(stack_of(loaded.anatomy, site), site.layer or 0)[0]
    if edit.units is not None and max(edit.units) >= n_units:
        raise BabelScopeError(f"site {site} has no {site.axes[0]} {max(edit.units)}", f"they are 0 to {n_units - 1}")
    if edit.counts is not None and edit.counts != counts:
        raise BabelScopeError(
            f"site {site} at {edit.position}: the source has {list(edit.counts)} tokens in its prompts, "
            f"the batch has {list(counts)}",
            "patch at a position of one token, as last or first, from as many prompts",
        )


@contextmanager
def replacing(places: Mapping[K, Place], change: Callable[[K, Tensor], Tensor]) -> Iterator[None]:
    """Put `change(key, tensor)` in the place of the tensor that passes; every hook is gone on leaving."""
    with ExitStack() as stack:
        for key, place in places.items():
            stack.callback(_replace(place, partial(change, key)).remove)
        yield


def _replace(place: Place, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        new = change(entering(args, kwargs))
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        new = change(leaving(output))
        return type(output)((new, *output[1:])) if isinstance(output, tuple | list) else new

    if place.end == "input":
        return place.module.register_forward_pre_hook(before, with_kwargs=True)
    if place.end == "output":
        return place.module.register_forward_hook(after)
    raise BabelScopeError(f"what passes at {place.end!r} can be read but not replaced", "edit another site")
