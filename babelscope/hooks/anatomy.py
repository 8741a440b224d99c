"""Where a model keeps its parts: found by structure and by what one small forward pass shows, never by a table."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from babelscope.errors import BabelScopeError
from babelscope.hooks.mlp import Gate, find_mlp
from babelscope.hooks.place import Place
from babelscope.hooks.probe import Call, Probe, is_linear, probe
from babelscope.hooks.residual import Residual, find_residual


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The parts of one block; None for what was not found.

    Parameters
    ----------
    module : Module
        The block itself.
    attention : Module or None
        Smallest module inside which attention is computed.
    output_projection : Module or None
        The linear that reads what attention returned.
    n_heads : int
        Query heads; 0 without attention.
    down_projection : Module or None
        The linear that reads the neurons.
    activation : Module or None
        The non-linearity of the MLP, where it is a module.
    gate : Gate or None
        What the activation is multiplied with; None where it is not.
    residual : Residual or None
        The equation that proves attention and MLP.
    """

    module: nn.Module
    attention: nn.Module | None = None
    output_projection: nn.Module | None = None
    n_heads: int = 0
    down_projection: nn.Module | None = None
    activation: nn.Module | None = None
    gate: Gate | None = None
    residual: Residual | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """The parts of a model.

    Parameters
    ----------
    body : Module
        The transformer without its head.
    embedding : Module
        What turns token ids into vectors.
    embedded : Place
        Where the tensor that block 0 reads can be taken: after positions, scaling and norms.
    layers : tuple of Layer
    final_norm : Module or None
        None in models that end with their last block, as BERT.
    unembedding : Module or None
    width : int
        Of the residual stream.
    """

    body: nn.Module
    embedding: nn.Module
    embedded: Place
    layers: tuple[Layer, ...]
    final_norm: nn.Module | None
    unembedding: nn.Module | None
    width: int
    name: str

    @property
    def missing(self) -> dict[str, tuple[int, ...]]:
        """Part -> layers where it was not found, for parts that are missing anywhere."""
        found: dict[str, list[int]] = {}
        for i, layer in enumerate(self.layers):
            for part in _missing(layer):
                found.setdefault(part, []).append(i)
        return {part: tuple(layers) for part, layers in found.items()}

    def require(self, site: str, layer: int, *parts: str) -> Layer:
        """The layer, if it has all the parts that a site needs.

        Raises
        ------
        BabelScopeError
            Naming the parts that were not found.
        """
        absent = [p for p in parts if p in _missing(self.layers[layer])]
        if absent:
            raise BabelScopeError(
                f"site {site}@{layer}: in layer {layer} of {self.name} these parts were not found: {', '.join(absent)}",
                "leave the site out; resid.pre and resid.post exist in every model",
            )
        return self.layers[layer]


def _missing(layer: Layer) -> list[str]:
    mlp_proved = layer.residual is not None and layer.residual.form != "attention"
    present = {
        "attention": layer.attention,
        "output projection": layer.output_projection,
        "an equation that proves attention": layer.residual,
        "down projection": layer.down_projection,
        "activation module": layer.activation,
        "an equation that proves the MLP": mlp_proved or None,
    }
    return [part for part, found in present.items() if found is None]


@torch.inference_mode()
def locate(model: PreTrainedModel) -> Anatomy:
    """Find the parts of a model by its structure and one forward pass over nine tokens.

    Returns
    -------
    Anatomy
        Parts that were not found are None; sites that need them are refused when they are asked for.

    Raises
    ------
    BabelScopeError
        If the model has two stacks, or no list of blocks that each run once.
    """
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise BabelScopeError(
            f"{name} is an encoder-decoder, which is not supported yet", "name a decoder-only model or an encoder"
        )
    body: nn.Module = model.base_model
    blocks = _layer_list(body, getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    if blocks is None:
        raise BabelScopeError(
            f"{name}: no list of transformer blocks was found", "name a transformer whose layers stand in a ModuleList"
        )
    seen = probe(model, body, blocks)
    calls = {id(c.module): c for c in seen.calls}
    ran = [b for b in blocks if id(b) in calls]
    if not ran or any(seen.n_calls(b) != 1 for b in ran):
        raise BabelScopeError(
            f"{name}: its blocks are run {'never' if not ran else 'more than once'} in a forward pass",
            "layers that share their weights have no site of their own; name another model",
        )
    first, last = calls[id(ran[0])], calls[id(ran[-1])]
    assert first.read is not None
    assert last.returned is not None
    return Anatomy(
        body=body,
        embedding=_embedding(seen, model),
        embedded=_embedded(seen, first),
        layers=tuple(_layer(seen, calls[id(b)]) for b in ran),
        final_norm=_final_norm(seen, last),
        unembedding=model.get_output_embeddings(),  # type: ignore[no-untyped-call]
        width=first.read.shape[-1],
        name=name,
    )


def _layer_list(body: nn.Module, n_layers: int) -> nn.ModuleList | None:
    lists = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m)]
    blocks = [m for m in lists if all(isinstance(c, GradientCheckpointingLayer) for c in m)]
    if not blocks:  # older model files: blocks of one class, as many as the configuration says, with matrices inside
        alike = [m for m in lists if len(m) == n_layers and len({type(c) for c in m}) == 1]
        blocks = [m for m in alike if any(is_linear(part) for part in m[0].modules())]
    return max(blocks, key=len, default=None)


def _embedding(seen: Probe, model: PreTrainedModel) -> nn.Module:
    # `get_input_embeddings` can name a module that forward never calls (M2M100), so the ids decide.
    readers = [c.module for c in seen.calls if c.layer is None and _same(c.read, seen.ids) and not _has_children(c)]
    fallback: nn.Module = model.get_input_embeddings()
    return readers[0] if readers else fallback


def _embedded(seen: Probe, first: Call) -> Place:
    """The outermost module that returns what block 0 reads, or that block's input where no module does."""
    earlier = [c for c in seen.calls if c.ended < first.began and _same(c.returned, first.read)]
    usable = [c for c in earlier if seen.n_calls(c.module) == 1]
    return Place(usable[-1].module, "output") if usable else Place(first.module, "input")


def _final_norm(seen: Probe, last: Call) -> nn.Module | None:
    after = [c for c in seen.calls if c.began > last.ended and not _has_children(c)]
    norms = [c.module for c in after if _same(c.read, last.returned) and _same(c.returned, seen.body_output)]
    return norms[0] if norms else None


def _layer(seen: Probe, block: Call) -> Layer:
    calls = seen.in_layer(block.layer if block.layer is not None else -1)
    once = [c for c in calls if seen.n_calls(c.module) == 1]
    attending = next((a for a in seen.attending if a.layer == block.layer), None)
    assert block.read is not None
    assert block.returned is not None
    width = block.read.shape[-1]
    tensors = {"resid.pre": block.read, "resid.post": block.returned}

    projection = None
    if attending is not None:
        after = [c for c in once if c.began > attending.at and is_linear(c.module) and _width(c.returned) == width]
        projection = min(after, key=lambda c: c.began, default=None)
        if projection is not None and (_width(projection.read) or 0) % attending.n_heads:
            projection = None
    if projection is not None and projection.returned is not None:
        tensors["attn.out"] = projection.returned

    excluded = _inside_attention(attending.module if attending else None, block.module)
    excluded |= {id(projection.module)} if projection else set()
    mlp = find_mlp([c for c in once if id(c.module) not in excluded], width)
    if mlp is not None:
        tensors["mlp.out"] = mlp.out
    return Layer(
        module=block.module,
        attention=attending.module if attending else None,
        output_projection=projection.module if projection else None,
        n_heads=attending.n_heads if attending else 0,
        down_projection=mlp.down_projection if mlp else None,
        activation=mlp.activation if mlp else None,
        gate=mlp.gate if mlp else None,
        residual=find_residual(calls, tensors),
    )


def _inside_attention(attention: nn.Module | None, block: nn.Module) -> set[int]:
    if attention is None or attention is block:
        return set()
    return _ids(attention.modules())


def _ids(modules: Iterable[nn.Module]) -> set[int]:
    return {id(m) for m in modules}


def _has_children(call: Call) -> bool:
    return any(True for _ in call.module.children())


def _width(x: Tensor | None) -> int | None:
    return None if x is None or x.ndim == 0 else x.shape[-1]


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and bool((a == b).all())
