"""The laws of all sites, checked on the tensors of a real forward pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.place import Place, by_prompt, tapped
from babelscope.hooks.tap import Tap, all_taps
from babelscope.hooks.tolerance import LAW, largest_error

# Laws hold token by token, so a sample of them bounds the memory: all layers of it are held at once.
SAMPLED_TOKENS = 32


@dataclass(slots=True)
class Observation:
    """Tensors of a sample of tokens, by layer and site kind; filled by a forward pass."""

    anatomy: Anatomy
    taps: dict[int, tuple[Tap, ...]]
    tensors: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def errors(self) -> dict[str, float]:
        """Site kind -> largest relative error of its law over the layers.

        Raises
        ------
        BabelScopeError
            Naming the site whose law fails.
        """
        found: dict[str, float] = {}
        with torch.inference_mode():
            for layer, taps in self.taps.items():
                seen = self._layer(layer)
                for tap in taps:
                    sides = tap.law(self.anatomy, layer, seen)
                    if sides is not None:
                        error = _check(self.anatomy, tap, layer, *sides)
                        found[tap.kind] = max(found.get(tap.kind, 0.0), error)
        return found

    def _layer(self, layer: int) -> Mapping[str, Tensor]:
        seen = {kind: x for (i, kind), x in self.tensors.items() if i == layer}
        before = (0, "embed") if layer == 0 else (layer - 1, "resid.post")
        after = (layer + 1, "resid.pre")
        seen["resid.before"] = self.tensors[before]
        if after in self.tensors:
            seen["resid.after"] = self.tensors[after]
        return seen


def _check(anatomy: Anatomy, tap: Tap, layer: int, found: Tensor, expected: Tensor) -> float:
    tolerance = LAW[expected.dtype]
    dtype = str(expected.dtype).removeprefix("torch.")
    error = largest_error(found, expected) if found.shape == expected.shape else float("inf")
    if not error <= tolerance:  # NaN fails as well
        raise BabelScopeError(
            f"site {tap.kind}@{layer} of {anatomy.name} breaks its law ({tap.equation}): "
            f"relative error {error:.1e}, at most {tolerance:.0e} expected in {dtype}",
            "this model keeps its parts elsewhere; leave the site out, and report the model",
        )
    return error


@contextmanager
def observing(anatomy: Anatomy, mask: Tensor) -> Iterator[Observation]:
    """Collect what the laws need from the forward passes run inside.

    Parameters
    ----------
    anatomy : Anatomy
    mask : Tensor
        Attention mask (prompt, token) of the batch that will be run.
    """
    taps = {i: tuple(_provable(anatomy, i)) for i in range(len(anatomy.layers))}
    rows, columns = torch.nonzero(mask, as_tuple=True)
    chosen = torch.linspace(0, len(rows) - 1, min(SAMPLED_TOKENS, len(rows)), device=rows.device).round().long()
    rows, columns = rows[chosen], columns[chosen]
    seen = Observation(anatomy, taps)
    reshape = {(i, tap.kind): tap.reshape for i, found in taps.items() for tap in found}

    def keep(key: tuple[int, str], x: Tensor) -> None:
        layer, kind = key
        sample = by_prompt(x, mask)[rows.to(x.device), columns.to(x.device)]  # indexing with tensors copies
        if key in reshape:
            sample = reshape[key](sample, anatomy, layer)
        gate = anatomy.layers[layer].gate if layer < len(anatomy.layers) else None
        if kind == "mlp.gate" and gate is not None:
            sample = sample[..., gate.start : gate.stop]
        seen.tensors[key] = sample

    with tapped(_places(anatomy, taps), keep):
        yield seen


def check_laws(anatomy: Anatomy, input_ids: Tensor, attention_mask: Tensor) -> dict[str, float]:
    """Run one batch through the model and check every law on a sample of its tokens.

    Returns
    -------
    dict
        Site kind -> largest relative error over the layers; kinds that the model lacks are absent.

    Raises
    ------
    BabelScopeError
        Naming the site whose law fails, its error and the tolerance.
    """
    with torch.inference_mode(), observing(anatomy, attention_mask) as seen:
        anatomy.body(input_ids=input_ids, attention_mask=attention_mask)
    return seen.errors()


def _provable(anatomy: Anatomy, layer: int) -> Iterator[Tap]:
    for tap in all_taps():
        try:
            tap.place(anatomy, layer)
        except BabelScopeError:
            continue  # this model has no such part in this layer: nothing is captured there either
        yield tap


def _places(anatomy: Anatomy, taps: Mapping[int, tuple[Tap, ...]]) -> dict[tuple[int, str], Place]:
    places = {(i, tap.kind): tap.place(anatomy, i) for i, found in taps.items() for tap in found}
    for i, layer in enumerate(anatomy.layers):
        if layer.gate is not None:
            places[i, "mlp.gate"] = Place(layer.gate.module, "output")
        if layer.residual is not None and layer.residual.middle is not None:
            places[i, "resid.mid"] = Place(layer.residual.middle, "input")
    if anatomy.final_norm is not None:
        places[len(anatomy.layers), "resid.pre"] = Place(anatomy.final_norm, "input")
    return places
