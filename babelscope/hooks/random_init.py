"""The same architecture with weights that nobody trained: what a metric says of it, it says of the input."""

import torch

from babelscope.errors import BabelScopeError
from babelscope.hooks.model_classes import auto_class
from babelscope.hooks.models import LoadedModel, as_loaded
from babelscope.qcross.injection import config_of


def random_init(loaded: LoadedModel, seed: int = 0) -> LoadedModel:
    """A model of the same configuration, tokenizer, dtype and device, initialized as its class does it.

    Raises
    ------
    BabelScopeError
        For a model that is more than its configuration: with an adapter, cross-lingual queries or quantized weights.
    """
    ref = loaded.ref
    if ref.adapter or ref.quantization or config_of(loaded.model) is not None:
        raise BabelScopeError(
            f"{ref.source} has an adapter, cross-lingual queries or quantized weights, which random weights have not",
            "compare with a store of the plain model instead: analyze other.acts run.acts",
        )
    config = loaded.model.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto_class(config).from_config(
            config, dtype=loaded.model.dtype, attn_implementation=config._attn_implementation
        )
    model = model.to(loaded.device).eval().requires_grad_(False)
    return as_loaded(model, loaded.tokenizer, source=f"random-init {seed} of {ref.source}")
