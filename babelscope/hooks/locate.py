"""Where a model keeps its parts: found by structure and by what one small forward pass shows, never by a table."""

from collections.abc import Mapping, Sequence
from functools import cache, partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy, Layer, Stack
from babelscope.hooks.anatomy_file import AnatomyFile, StackPaths
from babelscope.hooks.layer import find_layer
from babelscope.hooks.mixing import disturbed, token_mixer
from babelscope.hooks.place import Place
from babelscope.hooks.probe import Attending, Blocks, Call, Probe, is_linear, probe
from babelscope.hooks.tolerance import not_finite


@torch.inference_mode()
def locate(model: PreTrainedModel, named: AnatomyFile | None = None) -> Anatomy:
    """Find the parts of a model by its structure and one forward pass over nine tokens.

    Parameters
    ----------
    named : AnatomyFile, optional
        Parts that the user names; what it leaves out is located.

    Returns
    -------
    Anatomy
        Parts that were not found are None; sites that need them are refused when they are asked for.

    Raises
    ------
    BabelScopeError
        If a stack has no list of blocks that each run once, if a part that is named is not what its name says, or if
        the blocks return values that are not finite, of which no equation holds.
    """
    roots = _roots(model)
    paths = (named or AnatomyFile()).stacks(roots)
    found = {tag: _block_lists(model, root, paths[tag]) for tag, root in roots.items()}
    if any(len(lists) > 1 for lists in found.values()):  # an encoder of images or sound beside the one of text
        found = _that_run(model, found)
    blocks = {tag: max(lists, key=len) for tag, lists in found.items()}
    for tag in roots:
        paths[tag].check(model, len(blocks[tag]))
    seen = probe(model, model.base_model, blocks)
    _check_finite(seen, model, blocks)
    return Anatomy(
        model=model,
        body=model.base_model,
        stacks={tag: _stack(seen, model, tag, root, blocks, paths[tag]) for tag, root in roots.items()},
        unembedding=model.get_output_embeddings(),  # type: ignore[no-untyped-call]
    )


def _roots(model: PreTrainedModel) -> dict[str, nn.Module]:
    if getattr(model.config, "is_encoder_decoder", False):
        return {"enc": model.get_encoder(), "dec": model.get_decoder()}  # type: ignore[no-untyped-call]
    return {"": model.base_model}


def _that_run(
    model: PreTrainedModel, found: Mapping[str, list[Sequence[nn.Module]]]
) -> dict[str, list[Sequence[nn.Module]]]:
    """The lists whose blocks read text, as far as there are any."""
    seen = probe(model, model.base_model, {tag: lists[0] for tag, lists in found.items()})
    ran = {id(c.module) for c in seen.calls}
    chosen = {tag: [x for x in lists if any(id(b) in ran for b in x)] for tag, lists in found.items()}
    return {tag: chosen[tag] or lists for tag, lists in found.items()}


def _check_finite(seen: Probe, model: PreTrainedModel, blocks: Blocks) -> None:
    streams = {id(block) for stack in blocks.values() for block in stack}
    if all(_is_finite(c) for c in seen.calls if id(c.module) in streams):
        return
    # Calls are in the order of completion, so no part of this one returned such values before it.
    first = next(c for c in seen.calls if not _is_finite(c))
    paths = {id(module): path for path, module in model.named_modules()}
    raise not_finite(type(model).__name__, f"what {paths[id(first.module)]} returns", model.dtype)


def _is_finite(call: Call) -> bool:
    return call.returned is None or bool(call.returned.isfinite().all())


def _block_lists(model: PreTrainedModel, root: nn.Module, paths: StackPaths) -> list[Sequence[nn.Module]]:
    named = paths.blocks(model)
    if named is not None:
        return [named]
    found = _layer_lists(root, getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    if not found:
        raise BabelScopeError(
            f"{type(model).__name__}: no list of transformer blocks was found",
            "name its blocks in an anatomy file (--anatomy, see docs/anatomy.md)",
        )
    return found


def _layer_lists(body: nn.Module, n_layers: int) -> list[Sequence[nn.Module]]:
    lists = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m)]
    blocks = [m for m in lists if all(isinstance(c, GradientCheckpointingLayer) for c in m)]
    if not blocks:  # older model files: blocks of one class, as many as the configuration says, with matrices inside
        alike = [m for m in lists if len(m) == n_layers and len({type(c) for c in m}) == 1]
        blocks = [m for m in alike if any(is_linear(part) for part in m[0].modules())]
    return [list(m) for m in blocks]


def _stack(seen: Probe, model: PreTrainedModel, tag: str, root: nn.Module, blocks: Blocks, paths: StackPaths) -> Stack:
    name = type(model).__name__
    calls = {id(c.module): c for c in seen.calls}
    ran = [b for b in blocks[tag] if id(b) in calls]
    if not ran or any(seen.n_calls(b) != 1 for b in ran):
        raise _no_blocks(
            name,
            paths.layers,
            f"are run {'never' if not ran else 'more than once'} in a forward pass",
            "layers that share their weights have no site of their own; name another model",
        )
    first, last = calls[id(ran[0])], calls[id(ran[-1])]
    if first.read is None or first.read.ndim != 3 or first.read.shape[0] != 1:
        shape = None if first.read is None else tuple(first.read.shape)
        raise _no_blocks(
            name,
            paths.layers,
            f"read {shape} for a prompt of {seen.ids.shape[1]} tokens, not (prompt, token, dim)",
            "its residual stream has another form; name another model",
        )
    return Stack(
        tag=tag,
        module=root,
        embedding=_embedding(seen, model, tag),
        embedded=_embedded(seen, first, paths.module(model, "embedding")),
        layers=_layers(seen, model, blocks, [calls[id(b)] for b in ran], paths),
        final_norm=_final_norm(seen, last, calls[id(root)].returned, paths.module(model, "final_norm")),
        width=first.read.shape[-1],
        name=name,
    )


def _layers(
    seen: Probe, model: PreTrainedModel, blocks: Blocks, ran: Sequence[Call], paths: StackPaths
) -> tuple[Layer, ...]:
    again = cache(partial(disturbed, model, blocks, seen))  # run at most once, and only where it is asked for
    name = type(model).__name__

    def mixer(block: Call) -> Attending | None:
        return token_mixer(seen, again(), block)

    return tuple(find_layer(seen, block, mixer, paths.parts(model, i), name) for i, block in enumerate(ran))


def _embedding(seen: Probe, model: PreTrainedModel, tag: str) -> nn.Module:
    # `get_input_embeddings` can name a module that forward never calls (M2M100), so the ids decide.
    ids = seen.decoder_ids if tag == "dec" else seen.ids
    readers = [c.module for c in seen.calls if c.layer is None and _same(c.read, ids) and not _has_children(c)]
    fallback: nn.Module = model.get_input_embeddings()
    return readers[0] if readers else fallback


def _embedded(seen: Probe, first: Call, named: nn.Module | None) -> Place:
    """The outermost module that returns what block 0 reads, or that block's input where no module does."""
    earlier = [c for c in seen.calls if c.ended < first.began and _same(c.returned, first.read)]
    usable = [c for c in earlier if seen.n_calls(c.module) == 1 and named in (None, c.module)]
    if named is not None and not usable:
        raise _not_what_it_says("embedding", "returns something else than what block 0 reads")
    return Place(usable[-1].module, "output") if usable else Place(first.module, "input")


def _final_norm(seen: Probe, last: Call, returned: Tensor | None, named: nn.Module | None) -> nn.Module | None:
    if named is not None:
        if not any(c.module is named and _same(c.read, last.returned) for c in seen.calls):
            raise _not_what_it_says("final_norm", "reads something else than what the last block returns")
        return named
    after = [c for c in seen.calls if c.began > last.ended and not _has_children(c)]
    norms = [c.module for c in after if _same(c.read, last.returned) and _same(c.returned, returned)]
    return norms[0] if norms else None


def _no_blocks(name: str, named: str | None, fault: str, hint: str) -> BabelScopeError:
    if named is None:
        return BabelScopeError(f"{name}: its blocks {fault}", hint)
    return BabelScopeError(
        f"anatomy file: layers {named!r} of {name} are no blocks: they {fault}",
        "name the list whose modules the residual stream runs through, or leave layers out: they are located then",
    )


def _not_what_it_says(part: str, fault: str) -> BabelScopeError:
    return BabelScopeError(
        f"anatomy file: the {part} that is named {fault}",
        "compare the path with the model's own code, or leave the part out: what is left out is located",
    )


def _has_children(call: Call) -> bool:
    return any(True for _ in call.module.children())


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and bool((a.to(b.device) == b).all())
