"""What is read in a TransformerBridge for a plan: hook names, and modules of the model that the bridge goes on calling.

A name can mean different things in different families, or never fire. So all that may hold a site are tried on a
sample, one after the other, and the first that agrees with the model itself is taken.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from babelscope.hooks.backends import torch as native
from babelscope.hooks.backends.torch import reductions, without_cache
from babelscope.hooks.capture import Keep, Passed
from babelscope.hooks.interior import at_softmax
from babelscope.hooks.laws import check_laws
from babelscope.hooks.mass import Reduction
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import Place, Stop, tapped
from babelscope.hooks.reach import disagreement, not_reachable, refuse_unknown, sample_batch, seen_rows
from babelscope.hooks.tap import place_of, unit_of
from babelscope.hooks.tokens import Batch
from babelscope.schema import CapturePlan, Site

NAME = "transformer-lens"

BLOCKS = {"": "blocks", "enc": "encoder_blocks", "dec": "decoder_blocks"}


def _attention(*names: str) -> dict[str, tuple[str, ...]]:
    return {
        "attn": tuple(f"{module}.{name}" for name in names for module in ("attn", "self_attn")),
        "cross": tuple(f"cross_attn.{name}" for name in names),
    }


_INSIDE = {
    "out": _attention("o.hook_out"),
    "heads": _attention("o.hook_in"),
    "q": _attention("hook_rot_q", "q.hook_out"),
    "k": _attention("hook_rot_k", "k.hook_out"),
    "v": _attention("v.hook_out"),
    "scores": _attention("hook_attn_scores"),
    "pattern": _attention("hook_pattern"),
    "mass": _attention("hook_pattern"),
}
# Kind -> hook names below the block. `embed` is what block 0 reads, while `embed.hook_out` lacks positions, scaling
# and norms. A mixture of experts has no `mlp.out` but a block of its own.
HOOKS: Mapping[str, tuple[str, ...]] = {
    "embed": ("hook_in",),
    "resid.pre": ("hook_in",),
    "resid.post": ("hook_out",),
    "mlp.out": ("mlp.out.hook_out", "mlp.hook_out"),
    "mlp.neurons": ("mlp.out.hook_in",),
    "moe.expert": ("mlp.hook_expert_indices",),
    **{f"{family}.{part}": names[family] for part, names in _INSIDE.items() for family in ("attn", "cross")},
}
# No hook name at all, or one that holds something else in some families, while the model's own module still runs
# inside the bridge there.
OWN_MODULE = (
    "mlp.act", "moe.neurons", "moe.expert", "moe.weight",
    *(f"{family}.{part}" for family in ("attn", "cross") for part in ("q", "k", "v", "scores", "pattern", "mass")),
)  # fmt: skip

# A hook name, or a place in the copy that the bridge was built from.
Source: TypeAlias = str | Place


@dataclass(frozen=True, slots=True, eq=False)
class BridgePass:
    """A forward pass through the bridge.

    Parameters
    ----------
    model : PreTrainedModel
        The copy that the bridge was built from.
    sources : mapping
        Site -> what is read for it.
    """

    loaded: LoadedModel
    plan: CapturePlan
    bridge: Any
    model: PreTrainedModel
    sources: Mapping[Site, Source]

    def __call__(self, batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        """See `ForwardPass`."""
        errors = check_laws(self.loaded.anatomy, batch, self.plan.sites) if laws else {}
        unseen = set(self.sources)

        def kept(site: Site, x: Tensor) -> None:
            unseen.discard(site)
            keep(site, x)
            if not unseen and not logits:
                raise Stop

        output = self._run(batch, kept, logits=logits)
        return Passed(output[:, 0] if output is not None else None, errors)

    def _run(self, batch: Batch, keep: Keep, *, logits: bool) -> Tensor | None:
        reduced = reductions(self.plan, batch)
        places = {site: source for site, source in self.sources.items() if isinstance(source, Place)}

        def heard(site: Site, x: Tensor, hook: Any) -> None:
            keep(site, self._laid_out(site, x, batch, reduced.get(site)))

        listening: list[tuple[str, Any]] = [
            (source, partial(heard, site)) for site, source in self.sources.items() if isinstance(source, str)
        ]
        if logits:
            listening.append(("unembed.hook_in", partial(_last_only, batch.output_mask.sum(1) - 1)))
        inputs = batch.inputs() | without_cache(self.loaded.model)
        with torch.inference_mode(), ExitStack() as stack:
            stack.enter_context(tapped(places, keep, model=self.model, reductions=reduced))
            stack.enter_context(self.bridge.hooks(fwd_hooks=listening))
            stack.enter_context(suppress(Stop))
            output: Tensor = self.bridge(inputs.pop("input_ids"), return_type="logits", **inputs)
            return output
        return None

    def _laid_out(self, site: Site, x: Tensor, batch: Batch, reduction: Reduction | None) -> Tensor:
        """What a hook gives, in the shape in which our own taps hand it over."""
        anatomy = self.loaded.anatomy
        end = place_of(anatomy, site).end
        if end in ("scores", "pattern", "mass"):
            shape = (*batch.mask_of(site.stack).shape, batch.key_mask(site).shape[1])
            return at_softmax(end, x, shape, self.loaded.model.dtype, reduction)
        if end in ("query", "key", "value") and x.ndim == 3:  # from projections that the bridge cut out of a fused one
            return x.reshape(*x.shape[:2], -1, unit_of(anatomy, [site])[-1])
        # The bridge splits what the output projection reads into heads, which our taps do themselves.
        return x.flatten(-2) if end == "input" and x.ndim == 4 else x


def _last_only(last: Tensor, x: Tensor, hook: Any) -> Tensor:
    rows = torch.arange(len(last), device=x.device)
    return x[rows, last.to(x.device)].unsqueeze(1)


def in_copy(loaded: LoadedModel, twin: PreTrainedModel, site: Site) -> Place:
    """The place of a site in a copy of the model."""
    place = place_of(loaded.anatomy, site)
    name = next(name for name, module in loaded.anatomy.model.named_modules() if module is place.module)
    return Place(twin.get_submodule(name), place.end)


def candidates(
    loaded: LoadedModel, plan: CapturePlan, bridge: Any, own: Mapping[Site, Place]
) -> dict[Site, tuple[Source, ...]]:
    """What may hold each site of a plan, in the order in which it is tried.

    Raises
    ------
    BabelScopeError
        If the bridge has nothing for a site, or nothing is known for its kind.
    """
    refuse_unknown(plan, (*HOOKS, *OWN_MODULE), NAME)
    known, found = set[str](bridge.hook_dict), dict[Site, tuple[Source, ...]]()
    for site in plan.sites:
        block, names = f"{BLOCKS[site.stack]}.{site.layer or 0}", HOOKS.get(site.kind, ())
        hooks = (name for name in (f"{block}.{name}" for name in names) if name in known)
        found[site] = (*hooks, *((own[site],) if site.kind in OWN_MODULE else ()))
        if not found[site]:
            reason = f"the bridge of {loaded.anatomy.name} has no hook {' or '.join(names)} in {block}"
            raise not_reachable(f"site {site}", NAME, reason)
    return found


def chosen(run: BridgePass, tried: Mapping[Site, Sequence[Source]]) -> BridgePass:
    """The pass that reads the first candidate of each site which agrees with the model itself on a sample.

    Raises
    ------
    BabelScopeError
        Naming a site without one, and what each of its candidates gave.
    """
    loaded, batch = run.loaded, sample_batch(run.loaded)
    expected, _ = seen_rows(native.backend.open(loaded, run.plan), loaded, batch, logits=False)
    sources, reasons = dict[Site, Source](), defaultdict[Site, list[str]](list)
    for turn in range(max(map(len, tried.values()))):
        left = {site: some[turn] for site, some in tried.items() if site not in sources and turn < len(some)}
        found, _ = seen_rows(replace(run, sources=left), loaded, batch, logits=False) if left else ({}, None)
        for site, source in left.items():
            name = source if isinstance(source, str) else f"the model's own {type(source.module).__name__}"
            if site not in found:
                reasons[site].append(f"{name} never fires there")
            elif reason := disagreement(found[site], expected[site], loaded):
                reasons[site].append(f"{name} fires, but {reason}")
            else:
                sources[site] = source
    for site in run.plan.sites:
        if site not in sources:
            raise not_reachable(f"site {site}", NAME, "; ".join(reasons[site]))
    return replace(run, sources=sources)
