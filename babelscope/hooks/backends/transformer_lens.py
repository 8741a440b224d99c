"""TransformerLens: a TransformerBridge around a copy of the model, read at hook names whose meaning is checked."""

import copy
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel

from babelscope.errors import BabelScopeError
from babelscope.hooks.bridged import NAME, BridgePass, candidates, chosen, in_copy
from babelscope.hooks.extras import import_extra
from babelscope.hooks.interface import goes_through_interface
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.reach import check_agreement, not_reachable
from babelscope.schema import CapturePlan

MINIMUM = "4.3"

# Classes that compute the same as one the bridge knows.
SAME_AS = {"XLMRobertaForMaskedLM": "RobertaForMaskedLM"}


class TransformerLensBackend:
    """Opens `BridgePass`."""

    def open(self, loaded: LoadedModel, plan: CapturePlan) -> BridgePass:
        """A pass for this plan, on a copy of the model, compared once with the model's own."""
        with _as_it_was():
            sources = import_extra(
                "transformer_lens.model_bridge.sources", "transformer-lens", MINIMUM, extra="backends"
            )
        model = merged_copy(loaded.anatomy.model)
        own = {site: in_copy(loaded, model, site) for site in plan.sites}
        bridge = _bridge(sources, loaded, model)
        try:
            run = chosen(BridgePass(loaded, plan, bridge, model, {}), candidates(loaded, plan, bridge, own))
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
