"""The laws of sites inside attention, checked on all tokens of one prompt, layer by layer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.interior import NotShownError
from babelscope.hooks.place import Place, by_prompt, tapped
from babelscope.hooks.tap import Tap, tap_of, taps_of
from babelscope.hooks.tokens import Batch
from babelscope.schema import SITE_KINDS, Site

# Fewer tokens say little of how attention is spread over them.
ENOUGH_TOKENS = 8


class _Seen(NamedTuple):
    """One tensor of one block: a site, or what the laws need beside it (`attended`, `sinks`, `reduced`)."""

    stack: str
    layer: int
    kind: str


def attention_errors(anatomy: Anatomy, batch: Batch) -> dict[str, float]:
    """Check the laws on the shortest prompt of a batch that has enough tokens, or else on the longest.

    The longest one runs beside it, so that it is padded. Two passes: as the model computes by itself, for `mass`, and
    step by step, for everything that needs the pattern. One layer of one prompt is held at a time.

    Returns
    -------
    dict
        Site without layer -> largest relative error over the layers; empty where attention shows no pattern.

    Raises
    ------
    BabelScopeError
        Naming the site whose law fails.
    """
    lengths = batch.mask.sum(1)
    longest = int(lengths.max())
    enough = lengths.masked_fill(lengths < min(ENOUGH_TOKENS, longest), longest + 1)
    few = batch.of([int(enough.argmin()), int(lengths.argmax())])
    taps = {
        (tag, i): tuple(taps_of(stack, i, inside=True))
        for tag, stack in anatomy.stacks.items()
        for i in range(len(stack.layers))
    }
    by_itself, step_by_step = _Laws(anatomy, few, taps), _Laws(anatomy, few, taps)
    try:
        with torch.inference_mode():
            by_itself.run(by_itself.masses())
            step_by_step.tensors |= by_itself.tensors
            step_by_step.run(step_by_step.everything())
    except NotShownError:
        return {}
    return step_by_step.errors


@dataclass(slots=True)
class _Laws:
    """Tensors of the first prompt, (token, *unit), until the laws of their layer are checked."""

    anatomy: Anatomy
    batch: Batch
    taps: Mapping[tuple[str, int], tuple[Tap, ...]]
    tensors: dict[_Seen, Tensor] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def run(self, places: Mapping[_Seen, Place]) -> None:
        """One pass that listens at these places."""
        reductions = {
            key: self.batch.reduction(Site(key.kind, key.layer, key.stack), even=True)
            for key, place in places.items()
            if place.end == "mass"
        }
        with tapped(places, self._keep, model=self.anatomy.model, reductions=reductions):
            self.anatomy.body(**self.batch.inputs())

    def masses(self) -> dict[_Seen, Place]:
        """Where mass passes."""
        return {key: place for key, _, place in self._sites() if place.end == "mass"}

    def everything(self) -> dict[_Seen, Place]:
        """Where everything else passes, mass once more as reduction of the pattern, and the end of each block."""
        places: dict[_Seen, Place] = {}
        for key, tap, place in self._sites():
            family = key.kind.partition(".")[0]
            kind = f"{family}.reduced" if place.end == "mass" else tap.kind
            places[key._replace(kind=kind)] = place
            if place.end == "pattern":
                places[key._replace(kind=f"{family}.sinks")] = Place(place.module, "sinks")
            if place.end == "value":
                places[key._replace(kind=f"{family}.attended")] = Place(place.module, "attended")
                heads = tap_of(f"{family}.heads").place(self.anatomy.stacks[key.stack], key.layer)
                places[key._replace(kind=f"{family}.heads")] = heads
        for tag, layer in self.taps:
            places[_Seen(tag, layer, "")] = Place(self.anatomy.stacks[tag].layers[layer].module, "output")
        return places

    def _sites(self) -> Iterator[tuple[_Seen, Tap, Place]]:
        for (tag, layer), taps in self.taps.items():
            for tap in taps:
                yield _Seen(tag, layer, tap.kind), tap, tap.place(self.anatomy.stacks[tag], layer)

    def _keep(self, key: _Seen, x: Tensor) -> None:
        if not key.kind:
            self._check(key.stack, key.layer)
            return
        family = key.kind.partition(".")[0]
        rows = self.batch.mask_of("enc" if key.kind in ("cross.k", "cross.v") else key.stack)
        own = by_prompt(x, rows)[0, : int(rows[0].sum())]
        if key.kind in SITE_KINDS:
            own = tap_of(key.kind).reshape(own, self.anatomy.stacks[key.stack], key.layer)
        if key.kind.endswith((".scores", ".pattern")):
            keys = self.batch.mask_of("enc" if family == "cross" else key.stack)
            own = own[..., : int(keys[0].sum())]
        self.tensors[key] = own.clone()

    def _check(self, tag: str, layer: int) -> None:
        seen = {key.kind: x for key, x in self.tensors.items() if (key.stack, key.layer) == (tag, layer)}
        stack = self.anatomy.stacks[tag]
        for tap in self.taps[tag, layer]:
            name = f"{tag}.{tap.kind}" if tag else tap.kind
            if tap.kind not in seen:
                raise BabelScopeError(
                    f"site {name}@{layer}: not reachable, because nothing passes where the attention of "
                    f"{self.anatomy.name} was located",
                    "leave the sites inside attention out",
                )
            sides = tap.law(stack, layer, seen)
            if sides is not None:
                error = tap.error(stack, f"{name}@{layer}", *sides)
                self.errors[name] = max(self.errors.get(name, 0.0), error)
        self.tensors = {key: x for key, x in self.tensors.items() if (key.stack, key.layer) != (tag, layer)}
