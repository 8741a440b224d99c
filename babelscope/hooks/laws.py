"""The laws of all sites, checked on the tensors of a real forward pass."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.interior_laws import attention_errors
from babelscope.hooks.place import Place, by_prompt, tapped
from babelscope.hooks.tap import Tap, place_of, taps_of
from babelscope.hooks.tokens import Batch
from babelscope.hooks.tolerance import not_finite
from babelscope.schema import SITE_KINDS, Site

# Laws hold token by token, so a sample of them bounds the memory: all layers of it are held at once.
SAMPLED_TOKENS = 32


class Seen(NamedTuple):
    """One tensor of one block."""

    stack: str
    layer: int
    kind: str


@dataclass(slots=True)
class Observation:
    """Tensors of a sample of tokens; filled by a forward pass."""

    anatomy: Anatomy
    taps: Mapping[tuple[str, int], tuple[Tap, ...]]
    tensors: dict[Seen, Tensor] = field(default_factory=dict)

    def errors(self) -> dict[str, float]:
        """Site without layer -> largest relative error of its law over the layers.

        Raises
        ------
        BabelScopeError
            Naming the site whose law fails.
        """
        found: dict[str, float] = {}
        with torch.inference_mode():
            for (tag, layer), taps in self.taps.items():
                stack, seen = self.anatomy.stacks[tag], self._layer(tag, layer)
                for tap in taps:
                    sides = tap.law(stack, layer, seen)
                    if sides is not None:
                        name = f"{tag}.{tap.kind}" if tag else tap.kind
                        error = tap.error(stack, f"{name}@{layer}", *sides)
                        found[name] = max(found.get(name, 0.0), error)
        return found

    def _layer(self, tag: str, layer: int) -> Mapping[str, Tensor]:
        seen = {s.kind: x for s, x in self.tensors.items() if (s.stack, s.layer) == (tag, layer)}
        before = Seen(tag, 0, "embed") if layer == 0 else Seen(tag, layer - 1, "resid.post")
        after = Seen(tag, layer + 1, "resid.pre")
        seen["resid.before"] = self.tensors[before]
        if after in self.tensors:
            seen["resid.after"] = self.tensors[after]
        return seen


@contextmanager
def observing(anatomy: Anatomy, batch: Batch) -> Iterator[Observation]:
    """Collect what the laws need from the forward passes of this batch that are run inside.

    Laws of sites inside attention need all keys of a prompt, and step-by-step computation: see `interior_laws`.
    """
    taps = _taps(anatomy)
    samples = {tag: _sample(batch.mask_of(tag)) for tag in anatomy.stacks}
    seen = Observation(anatomy, taps)
    reshape = {Seen(*key, tap.kind): tap.reshape for key, found in taps.items() for tap in found}

    def keep(key: Seen, x: Tensor) -> None:
        stack = anatomy.stacks[key.stack]
        rows, columns = samples[key.stack]
        # Indexing with tensors copies.
        sample = by_prompt(x, batch.mask_of(key.stack))[rows.to(x.device), columns.to(x.device)]
        if key in reshape:
            sample = reshape[key](sample, stack, key.layer)
        gate = stack.layers[key.layer].gate if key.layer < len(stack.layers) else None
        if key.kind == "mlp.gate" and gate is not None:
            sample = sample[..., gate.start : gate.stop]
        seen.tensors[key] = sample

    with tapped(_places(anatomy, taps), keep):
        yield seen


def _sample(mask: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = torch.nonzero(mask, as_tuple=True)
    chosen = torch.linspace(0, len(rows) - 1, min(SAMPLED_TOKENS, len(rows)), device=rows.device).round().long()
    return rows[chosen], columns[chosen]


def check_laws(anatomy: Anatomy, batch: Batch, sites: Iterable[Site] | None = None) -> dict[str, float]:
    """Run one batch through the model and check every law on a sample of its tokens, or of its prompts.

    Parameters
    ----------
    sites : iterable of Site, optional
        What the laws are checked for: those inside attention, which take two further passes, are left out where none
        of these sites lies there. By default every law is checked.

    Returns
    -------
    dict
        Site without layer -> largest relative error over the layers; sites that the model lacks are absent.

    Raises
    ------
    BabelScopeError
        Naming the site whose law fails, its error and the tolerance, or the first with values that are not finite.
    """
    with torch.inference_mode(), observing(anatomy, batch) as seen:
        anatomy.body(**batch.inputs())
    if not all(x.isfinite().all() for x in seen.tensors.values()):
        raise _not_finite(anatomy, batch)
    errors = seen.errors()
    if sites is None or any(place_of(anatomy, site).is_inside for site in sites):
        errors |= attention_errors(anatomy, batch)
    return errors


def _not_finite(anatomy: Anatomy, batch: Batch) -> BabelScopeError:
    """Where such values come from, of all tokens: the one that brings them in need not be in the sample."""
    found: list[Site] = []

    def keep(key: Seen, x: Tensor) -> None:
        mask = batch.mask_of(key.stack).bool()
        if key.kind in SITE_KINDS and not by_prompt(x, mask)[mask.to(x.device)].isfinite().all():
            found.append(Site(key.kind, key.layer if SITE_KINDS[key.kind].per_layer else None, key.stack))

    with torch.inference_mode(), tapped(_places(anatomy, _taps(anatomy)), keep):
        anatomy.body(**batch.inputs())
    return not_finite(anatomy.name, str(found[0]), anatomy.model.dtype)


def _taps(anatomy: Anatomy) -> Mapping[tuple[str, int], tuple[Tap, ...]]:
    return {
        (tag, i): tuple(taps_of(s, i, inside=False)) for tag, s in anatomy.stacks.items() for i in range(len(s.layers))
    }


def _places(anatomy: Anatomy, taps: Mapping[tuple[str, int], tuple[Tap, ...]]) -> dict[Seen, Place]:
    places: dict[Seen, Place] = {}
    for tag, stack in anatomy.stacks.items():
        for i, layer in enumerate(stack.layers):
            places |= {Seen(tag, i, tap.kind): tap.place(stack, i) for tap in taps[tag, i]}
            if layer.gate is not None:
                places[Seen(tag, i, "mlp.gate")] = Place(layer.gate.module, "output")
            if layer.residual is not None and layer.residual.middle is not None:
                places[Seen(tag, i, "resid.mid")] = Place(layer.residual.middle, "input")
            if layer.residual is not None and layer.residual.end is not None:
                places[Seen(tag, i, "resid.end")] = Place(layer.residual.end, "input")
        if stack.final_norm is not None:
            places[Seen(tag, len(stack.layers), "resid.pre")] = Place(stack.final_norm, "input")
    return places
