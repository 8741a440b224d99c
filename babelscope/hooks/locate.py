"""Where a model keeps its parts: found by structure and by what one small forward pass shows, never by a table."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy, Attention, Layer, Stack
from babelscope.hooks.mlp import find_mlp
from babelscope.hooks.place import Place
from babelscope.hooks.probe import Attending, Call, Probe, is_linear, probe
from babelscope.hooks.residual import find_residual


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
        If a stack has no list of blocks that each run once.
    """
    roots = _roots(model)
    blocks = {tag: _block_list(model, root) for tag, root in roots.items()}
    seen = probe(model, model.base_model, blocks)
    return Anatomy(
        model=model,
        body=model.base_model,
        stacks={tag: _stack(seen, model, tag, root, blocks[tag]) for tag, root in roots.items()},
        unembedding=model.get_output_embeddings(),  # type: ignore[no-untyped-call]
    )


def _roots(model: PreTrainedModel) -> dict[str, nn.Module]:
    if getattr(model.config, "is_encoder_decoder", False):
        return {"enc": model.get_encoder(), "dec": model.get_decoder()}  # type: ignore[no-untyped-call]
    return {"": model.base_model}


def _block_list(model: PreTrainedModel, root: nn.Module) -> nn.ModuleList:
    found = _layer_list(root, getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    if found is None:
        raise BabelScopeError(
            f"{type(model).__name__}: no list of transformer blocks was found",
            "name a transformer whose layers stand in a ModuleList",
        )
    return found


def _layer_list(body: nn.Module, n_layers: int) -> nn.ModuleList | None:
    lists = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m)]
    blocks = [m for m in lists if all(isinstance(c, GradientCheckpointingLayer) for c in m)]
    if not blocks:  # older model files: blocks of one class, as many as the configuration says, with matrices inside
        alike = [m for m in lists if len(m) == n_layers and len({type(c) for c in m}) == 1]
        blocks = [m for m in alike if any(is_linear(part) for part in m[0].modules())]
    return max(blocks, key=len, default=None)


def _stack(seen: Probe, model: PreTrainedModel, tag: str, root: nn.Module, blocks: nn.ModuleList) -> Stack:
    name = type(model).__name__
    calls = {id(c.module): c for c in seen.calls}
    ran = [b for b in blocks if id(b) in calls]
    if not ran or any(seen.n_calls(b) != 1 for b in ran):
        raise BabelScopeError(
            f"{name}: its blocks are run {'never' if not ran else 'more than once'} in a forward pass",
            "layers that share their weights have no site of their own; name another model",
        )
    first, last = calls[id(ran[0])], calls[id(ran[-1])]
    assert first.read is not None
    return Stack(
        tag=tag,
        module=root,
        embedding=_embedding(seen, model, tag),
        embedded=_embedded(seen, first),
        layers=tuple(_layer(seen, calls[id(b)]) for b in ran),
        final_norm=_final_norm(seen, last, calls[id(root)].returned),
        width=first.read.shape[-1],
        name=name,
    )


def _embedding(seen: Probe, model: PreTrainedModel, tag: str) -> nn.Module:
    # `get_input_embeddings` can name a module that forward never calls (M2M100), so the ids decide.
    ids = seen.decoder_ids if tag == "dec" else seen.ids
    readers = [c.module for c in seen.calls if c.layer is None and _same(c.read, ids) and not _has_children(c)]
    fallback: nn.Module = model.get_input_embeddings()
    return readers[0] if readers else fallback


def _embedded(seen: Probe, first: Call) -> Place:
    """The outermost module that returns what block 0 reads, or that block's input where no module does."""
    earlier = [c for c in seen.calls if c.ended < first.began and _same(c.returned, first.read)]
    usable = [c for c in earlier if seen.n_calls(c.module) == 1]
    return Place(usable[-1].module, "output") if usable else Place(first.module, "input")


def _final_norm(seen: Probe, last: Call, returned: Tensor | None) -> nn.Module | None:
    after = [c for c in seen.calls if c.began > last.ended and not _has_children(c)]
    norms = [c.module for c in after if _same(c.read, last.returned) and _same(c.returned, returned)]
    return norms[0] if norms else None


def _layer(seen: Probe, block: Call) -> Layer:
    assert block.layer is not None
    assert block.read is not None
    assert block.returned is not None
    calls = seen.in_layer(block.layer)
    once = [c for c in calls if seen.n_calls(c.module) == 1]
    width = block.read.shape[-1]
    tensors = {"resid.pre": block.read, "resid.post": block.returned}
    excluded: set[int] = set()
    attentions: dict[str, Attention] = {}
    for kind, attending in zip(("attn", "cross"), _attending(seen, block), strict=False):
        projection = _output_projection(once, attending, width)
        if projection is not None and projection.returned is not None:
            tensors[f"{kind}.out"] = projection.returned
        excluded |= _inside(attending.module, block.module) | ({id(projection.module)} if projection else set())
        attentions[kind] = _attention(seen, attending, projection)
    mlp = find_mlp([c for c in once if id(c.module) not in excluded], width)
    if mlp is not None:
        tensors["mlp.out"] = mlp.out
    return Layer(
        module=block.module,
        attention=attentions.get("attn"),
        cross_attention=attentions.get("cross"),
        down_projection=mlp.down_projection if mlp else None,
        activation=mlp.activation if mlp else None,
        gate=mlp.gate if mlp else None,
        residual=find_residual(calls, tensors),
    )


def _attention(seen: Probe, attending: Attending, projection: Call | None) -> Attention:
    found = Attention(attending.module, projection.module if projection else None, attending.n_heads)
    given = seen.handed_over.get(id(attending.module))
    if given is None:
        return found
    unchanged = projection is not None and _same(projection.read, given.attended.flatten(-2))
    return replace(found, query=given.query, key=given.key, value=given.value, is_read_unchanged=unchanged)


def _attending(seen: Probe, block: Call) -> list[Attending]:
    """Attention of a block in the order of computing: to its own stack, then to the encoder; each module once."""
    found = [a for a in seen.attending if a.layer == block.layer]
    first: dict[int, Attending] = {}
    for attending in found:
        first.setdefault(id(attending.module), attending)
    is_decoder = block.layer is not None and block.layer[0] == "dec"
    return list(first.values())[: 2 if is_decoder else 1]


def _output_projection(calls: Iterable[Call], attending: Attending, width: int) -> Call | None:
    after = [c for c in calls if c.began > attending.at and is_linear(c.module) and _width(c.returned) == width]
    projection = min(after, key=lambda c: c.began, default=None)
    if projection is not None and (_width(projection.read) or 0) % attending.n_heads:
        return None
    return projection


def _inside(attention: nn.Module, block: nn.Module) -> set[int]:
    return set() if attention is block else {id(m) for m in attention.modules()}


def _width(x: Tensor | None) -> int | None:
    return None if x is None or x.ndim == 0 else x.shape[-1]


def _has_children(call: Call) -> bool:
    return any(True for _ in call.module.children())


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and bool((a == b).all())
