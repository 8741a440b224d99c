"""Edits at work: hooks that replace the tensor of a site on its way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from babelscope.errors import BabelScopeError
from babelscope.hooks import experts
from babelscope.hooks.attention import HIDDEN
from babelscope.hooks.backends.torch import forward
from babelscope.hooks.interior import Listener, listening_inside
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
        (row, *unit), prompt after prompt; real tokens only. Keys of `attn.scores` and `attn.pattern` are those of
        the longest prompt of the batch: NaN or 0 behind the own prompt. The summaries of `attn.mass` are entropy,
        mass on the first token, mean distance, and mass on each segment of the prompts, in the order of their names.
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
    where = {site: batch.where(Position.parse(position), site.row_stack) for site in sites}
    places = {site: place_of(loaded.anatomy, site) for site in sites}
    segmented = batch.with_segments() if any("summary" in site.axes for site in sites) else batch.tokens
    reductions = {site: segmented.reduction(site) for site in sites if "summary" in site.axes}
    found: dict[Site, Activations] = {}

    def keep(site: Site, x: Tensor) -> None:
        rows, columns, counts = where[site]
        picked = by_prompt(x, batch.tokens.mask_of(site.row_stack))[rows.to(x.device), columns.to(x.device)]
        shaped = _shaped(loaded, site, picked)
        if "key" in site.axes:
            keys = batch.tokens.key_mask(site).bool()[rows.to(batch.tokens.mask.device)].to(x.device)
            shaped = shaped.masked_fill(~keys[:, None], tap_of(site.kind).beyond)
        found[site] = Activations(shaped, Position.parse(position), counts)

    with torch.no_grad(), tapped(places, keep, model=loaded.model, reductions=reductions):
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
    places = {site: editable(loaded, site) for site in edits}
    where = {site: batch.where(edit.position, site.row_stack) for site, edit in edits.items()}
    for site, edit in edits.items():
        _check(loaded, site, edit, where[site][2])

    def change(site: Site, x: Tensor) -> Tensor:
        rows, columns, _ = where[site]
        by_token = by_prompt(x, batch.tokens.mask_of(site.row_stack))
        picked = by_token[rows.to(x.device), columns.to(x.device)]
        shaped = _shaped(loaded, site, picked)
        if shaped.numel() != picked.numel() or by_token.numel() != x.numel():
            raise BabelScopeError(
                f"site {site} of {loaded.anatomy.name} cannot be edited: it is a part of a larger tensor",
                "edit another site; resid.pre and resid.post exist in every model",
            )
        new = _replaced(shaped, edits[site], site).reshape(picked.shape)
        if "key" in site.axes:
            new = _over_keys(new, picked, batch.tokens.key_mask(site)[rows.to(batch.tokens.mask.device)], site)
        return by_token.index_put((rows.to(x.device), columns.to(x.device)), new).reshape(x.shape)

    with replacing(loaded, places, change):
        yield


def editable(loaded: LoadedModel, site: Site) -> Place:
    """Where a site passes that can be replaced and differentiated.

    Raises
    ------
    BabelScopeError
        For a site that the model lacks, and for one that it computes nothing from.
    """
    place = place_of(loaded.anatomy, site)
    if place.end == "mass":
        pattern = replace(site, kind=site.kind.replace("mass", "pattern"))
        raise BabelScopeError(
            f"site {site} of {loaded.anatomy.name} cannot be edited or differentiated: it sums {pattern} up, and the "
            "model computes nothing from it",
            f"use {pattern} in its place",
        )
    if place.end == "moe.expert":
        weight = replace(site, kind="moe.weight")
        raise BabelScopeError(
            f"site {site} of {loaded.anatomy.name} cannot be edited or differentiated: it is an index of experts",
            f"use {weight} in its place (a weight of 0 leaves the expert out), or {replace(site, kind='moe.neurons')}",
        )
    return place


def _shaped(loaded: LoadedModel, site: Site, rows: Tensor) -> Tensor:
    """(row, *unit)."""
    return tap_of(site.kind).reshape(rows, stack_of(loaded.anatomy, site), site.layer or 0)


def _over_keys(new: Tensor, own: Tensor, keys: Tensor, site: Site) -> Tensor:
    """Edited rows (row, head, key) in which no token sees what it could not see, and no weight falls on padding.

    Raises
    ------
    BabelScopeError
        If a score that a token sees is replaced by one that is not known, as from a row that sees fewer keys.
    """
    padding = ~keys.bool().to(new.device)[:, None]
    if not site.kind.endswith("scores"):
        return new.masked_fill(padding, 0.0)
    kept = torch.where(padding | (own < HIDDEN), own, new)
    if bool(kept.isnan().any()):
        raise BabelScopeError(
            f"the edit of {site} has no score for keys that the tokens see", "give a source that sees as many keys"
        )
    return kept


def _replaced(rows: Tensor, edit: Edit, site: Site) -> Tensor:
    """The rows with the chosen part of them changed; a new tensor, through which gradients flow."""
    units = None if edit.units is None else torch.tensor(edit.units, device=rows.device)
    part = rows if units is None else rows[:, units]
    new = edit.change(part).to(rows)
    if new.shape != part.shape:
        raise BabelScopeError(
            f"the edit of {site} turned rows of shape {tuple(part.shape)} into {tuple(new.shape)}",
            "keys are counted up to the longest prompt of a batch, which has to be as long in the source"
            if "key" in site.axes
            else "an edit keeps the shape of what it is given",
        )
    return new if units is None else rows.index_copy(1, units, new)


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
def replacing(loaded: LoadedModel, places: Mapping[K, Place], change: Callable[[K, Tensor], Tensor]) -> Iterator[None]:
    """Put `change(key, tensor)` in the place of the tensor that passes; every hook is gone on leaving."""
    inside = [
        (place.module, Listener(place.end, partial(change, key), replaces=True))
        for key, place in places.items()
        if place.is_inside
    ]
    with ExitStack() as stack:
        for key, place in places.items():
            if not place.is_inside:
                stack.callback(_replace(place, partial(change, key)).remove)
        if inside:
            stack.enter_context(listening_inside(loaded.model, inside))
        yield


def _replace(place: Place, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        new = change(entering(args, kwargs))
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        new = change(leaving(output))
        return type(output)((new, *output[1:])) if isinstance(output, tuple | list) else new

    if place.end in experts.ENDS:
        return experts.change(place.module, place.end, change)
    if place.end == "input":
        return place.module.register_forward_pre_hook(before, with_kwargs=True)
    return place.module.register_forward_hook(after)
