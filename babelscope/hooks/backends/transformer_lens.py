"""TransformerLens: a TransformerBridge around a copy of the model, read at hook names whose meaning was checked.

Several names of the bridge mean different things in different families, or never fire (`hook_attn_out`,
`hook_rot_q`, `embed.hook_out`). Those below held what they say wherever they exist, and each is compared with the
model itself when a plan is opened.
"""

import copy
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from babelscope.errors import BabelScopeError
from babelscope.hooks.backends.torch import without_cache
from babelscope.hooks.capture import Keep, Passed
from babelscope.hooks.extras import import_extra
from babelscope.hooks.interface import goes_through_interface
from babelscope.hooks.laws import check_laws
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import Place, Stop, tapped
from babelscope.hooks.reach import check_agreement, not_reachable, refuse_unknown
from babelscope.hooks.tap import place_of
from babelscope.hooks.tokens import Batch
from babelscope.schema import CapturePlan, Site

NAME, MINIMUM = "transformer-lens", "4.3"

BLOCKS = {"": "blocks", "enc": "encoder_blocks", "dec": "decoder_blocks"}

# Kind -> hook names below the block; the first that a bridge has. `embed` is what block 0 reads, while
# `embed.hook_out` lacks positions, scaling and norms. A mixture of experts has no `mlp.out` but a block of its own.
HOOKS: Mapping[str, tuple[str, ...]] = {
    "embed": ("hook_in",),
    "resid.pre": ("hook_in",),
    "resid.post": ("hook_out",),
    "attn.out": ("attn.o.hook_out", "self_attn.o.hook_out"),
    "attn.heads": ("attn.o.hook_in", "self_attn.o.hook_in"),
    "cross.out": ("cross_attn.o.hook_out",),
    "cross.heads": ("cross_attn.o.hook_in",),
    "mlp.out": ("mlp.out.hook_out", "mlp.hook_out"),
    "mlp.neurons": ("mlp.out.hook_in",),
}
# No hook name at all, but the model's own module still runs inside the bridge.
OWN_MODULE = ("mlp.act",)

# Classes that compute the same as one the bridge knows.
SAME_AS = {"XLMRobertaForMaskedLM": "RobertaForMaskedLM"}


@dataclass(frozen=True, slots=True, eq=False)
class BridgePass:
    """A forward pass through the bridge.

    Parameters
    ----------
    hooks : mapping
        Site -> name of its hook point.
    places : mapping
        Site -> place in the copy, for sites without a hook point.
    """

    loaded: LoadedModel
    bridge: Any
    hooks: Mapping[Site, str]
    places: Mapping[Site, Place]

    def __call__(self, batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        """See `ForwardPass`."""
        errors = check_laws(self.loaded.anatomy, batch) if laws else {}
        unseen = {*self.hooks, *self.places}

        def kept(site: Site, x: Tensor) -> None:
            unseen.discard(site)
            # The bridge splits what the output projection reads into heads, which our taps do themselves.
            keep(site, x.flatten(-2) if len(site.axes) == 2 and x.ndim == 4 else x)
            if not unseen and not logits:
                raise Stop

        inputs, output = batch.inputs() | without_cache(self.loaded.model), None
        with torch.inference_mode(), ExitStack() as stack:
            stack.enter_context(tapped(self.places, kept))
            listening: list[tuple[str, Any]] = [
                (name, partial(_hear, partial(kept, site))) for site, name in self.hooks.items()
            ]
            if logits:
                listening.append(("unembed.hook_in", partial(_last_only, batch.output_mask.sum(1) - 1)))
            stack.enter_context(self.bridge.hooks(fwd_hooks=listening))
            stack.enter_context(suppress(Stop))
            output = self.bridge(inputs.pop("input_ids"), return_type="logits", **inputs)
        if unseen:
            site = min(unseen)
            raise not_reachable(f"site {site}", NAME, f"{self.hooks.get(site, 'its module')} never fires there")
        return Passed(output[:, 0] if output is not None else None, errors)


def _hear(kept: Any, x: Tensor, hook: Any) -> None:
    kept(x)


def _last_only(last: Tensor, x: Tensor, hook: Any) -> Tensor:
    rows = torch.arange(len(last), device=x.device)
    return x[rows, last.to(x.device)].unsqueeze(1)


class TransformerLensBackend:
    """Opens `BridgePass`."""

    def open(self, loaded: LoadedModel, plan: CapturePlan) -> BridgePass:
        """A pass for this plan, on a copy of the model, compared once with the model's own."""
        refuse_unknown(plan, (*HOOKS, *OWN_MODULE), NAME)
        with _as_it_was():
            sources = import_extra(
                "transformer_lens.model_bridge.sources", "transformer-lens", MINIMUM, extra="backends"
            )
        model = merged_copy(loaded.anatomy.model)
        own = {site: _in_copy(loaded, model, site) for site in plan.sites if site.kind in OWN_MODULE}
        bridge = _bridge(sources, loaded, model)
        known: set[str] = set(bridge.hook_dict)
        hooks = {site: _hook_name(site, known, loaded) for site in plan.sites if site.kind in HOOKS}
        run = BridgePass(loaded, bridge, hooks, own)
        try:
            check_agreement(run, loaded, plan, NAME)
        except BabelScopeError:
            raise
        except Exception as error:  # a bridge that was built can still fail, as that of OLMo 2 does in bfloat16
            raise _refused(loaded, error) from error
        return run


def merged_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy that the bridge may take apart, with adapters merged into the weights.

    The bridge splits the base weights of fused projections and would lose an adapter on them without a word.
    """
    twin = copy.deepcopy(model)
    if "peft" not in sys.modules:
        return twin
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = {name: m for name, m in twin.named_modules() if isinstance(m, BaseTunerLayer)}
    for layer in adapted.values():
        layer.merge()
    for name, layer in adapted.items():
        if not any(name.startswith(f"{outer}.") for outer in adapted):
            twin.set_submodule(name, layer.get_base_layer())
    return twin


def _in_copy(loaded: LoadedModel, twin: PreTrainedModel, site: Site) -> Place:
    place = place_of(loaded.anatomy, site)
    name = next(name for name, module in loaded.anatomy.model.named_modules() if module is place.module)
    return Place(twin.get_submodule(name), place.end)


def _bridge(sources: Any, loaded: LoadedModel, model: PreTrainedModel) -> Any:
    architecture = type(model).__name__
    if goes_through_interface(model):
        model.set_attn_implementation("eager")
    try:
        # From the module and without a tokenizer: one that is passed in is loaded again, from the hub if need be.
        bridge: Any = sources.build_bridge_from_module(
            model, SAME_AS.get(architecture, architecture), hf_config=model.config
        )
    except Exception as error:  # whatever an adapter of another project raises, the model is not reachable
        raise _refused(loaded, error) from error
    return bridge.eval()


def _refused(loaded: LoadedModel, error: Exception) -> BabelScopeError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    reason = f"TransformerLens cannot run it ({type(error).__name__}: {first})"
    return not_reachable(f"{loaded.anatomy.name} in {dtype}", NAME, reason)


def _hook_name(site: Site, known: set[str], loaded: LoadedModel) -> str:
    block = f"{BLOCKS[site.stack]}.{site.layer or 0}"
    for name in HOOKS[site.kind]:
        if f"{block}.{name}" in known:
            return f"{block}.{name}"
    wanted = " or ".join(HOOKS[site.kind])
    raise not_reachable(f"site {site}", NAME, f"the bridge of {loaded.anatomy.name} has no hook {wanted} in {block}")


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Importing TransformerLens silences transformers and adds filters of warnings; both are the user's."""
    logger = logging.getLogger("transformers")
    level = logger.level
    with warnings.catch_warnings():
        try:
            yield
        finally:
            logger.setLevel(level)


backend = TransformerLensBackend()
