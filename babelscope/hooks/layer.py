"""The parts of one block, from the calls that a probe saw inside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Attention, Layer
from babelscope.hooks.anatomy_file import NamedParts
from babelscope.hooks.experts import Experts, scale_of, with_shared
from babelscope.hooks.mlp import Mlp, find_mlps
from babelscope.hooks.probe import Attending, Call, Probe, is_linear
from babelscope.hooks.residual import SMALLEST_SCALE, Residual, find_residual
from babelscope.hooks.tolerance import LAW, largest_error


def find_layer(
    seen: Probe, block: Call, mixer: Callable[[Call], Attending | None], named: NamedParts, name: str
) -> Layer:
    """The parts of one block.

    Parameters
    ----------
    seen : Probe
    block : Call
        Of the block.
    mixer : callable
        Looks for what mixes tokens where no softmax over keys was seen.
    named : NamedParts
        Parts that the user names; they are taken, and have to be proven.
    name : str
        Of the model, for errors.

    Raises
    ------
    BabelScopeError
        If no equation holds with a part that the user names.
    """
    assert block.layer is not None
    assert block.read is not None
    assert block.returned is not None
    calls = seen.in_layer(block.layer)
    once = [c for c in calls if seen.n_calls(c.module) == 1]
    width = block.read.shape[-1]
    tensors = {"resid.pre": block.read, "resid.post": block.returned}
    excluded: set[int] = set()
    attentions: dict[str, Attention] = {}
    for kind, attending in zip(("attn", "cross"), _attending(seen, block, mixer), strict=False):
        wanted = named.attention_output if kind == "attn" else None
        projection = _output_projection(once, attending, width, wanted)
        if projection is not None and projection.returned is not None:
            tensors[f"{kind}.out"] = projection.returned
        excluded |= _inside(attending.module, block.module) | ({id(projection.module)} if projection else set())
        attentions[kind] = _attention(seen, attending, projection)
    outside = [c for c in once if id(c.module) not in excluded or c.module is named.down_projection]
    found = _feed_forward(seen, calls, find_mlps(outside, width, named), tensors)
    _check_named(named, attentions.get("attn"), found, f"layer {block.layer[1]} of {name}")
    dense = found.dense
    return Layer(
        module=block.module,
        attention=attentions.get("attn"),
        cross_attention=attentions.get("cross"),
        mlp=found.module,
        down_projection=dense.down_projection if dense else None,
        experts=found.experts,
        activation=dense.activation if dense else None,
        gate=dense.gate if dense else None,
        residual=found.residual,
    )


def _attention(seen: Probe, attending: Attending, projection: Call | None) -> Attention:
    found = Attention(attending.module, projection.module if projection else None, attending.n_heads)
    given = seen.handed_over.get(id(attending.module))
    if given is None:
        return found
    read, attended = projection.read if projection else None, given.attended.flatten(-2)
    unchanged = read is not None and read.shape == attended.shape and torch.equal(read, attended)
    return replace(found, query=given.query, key=given.key, value=given.value, is_read_unchanged=unchanged)


def _check_named(named: NamedParts, attention: Attention | None, found: "_FeedForward", where: str) -> None:
    residual = found.residual
    proven = {
        "attention_output": residual is not None and attention is not None
        and attention.output_projection is named.attention_output,
        "down_projection": residual is not None and residual.form != "attention" and found.dense is not None
        and found.dense.down_projection is named.down_projection,
        "activation": found.dense is not None and found.dense.activation is named.activation,
    }  # fmt: skip
    wrong = [part for part, holds in proven.items() if getattr(named, part) is not None and not holds]
    if wrong:
        raise BabelScopeError(
            f"anatomy file: in {where} no equation holds with the {wrong[0]} that is named",
            "compare the paths with the model's own code, or leave the part out: what is left out is located",
        )


@dataclass(frozen=True, slots=True, eq=False)
class _FeedForward:
    """What follows attention in a block."""

    dense: Mlp | None = None
    module: nn.Module | None = None
    experts: Experts | None = None
    residual: Residual | None = None


def _feed_forward(
    seen: Probe, calls: Sequence[Call], candidates: Iterable[Mlp], tensors: Mapping[str, Tensor]
) -> _FeedForward:
    """The first candidate that an equation proves; else the first of all, with what proves attention alone."""
    dense = list(candidates)
    mixture = next((c for c in calls if id(c.module) in seen.slots and seen.n_calls(c.module) == 1), None)
    for partway in (False, True):
        if mixture is not None:
            found = _mixture(seen, calls, mixture, dense[0] if dense else None, tensors, partway=partway)
            if found is not None:
                return found
        for mlp in dense:
            residual = find_residual(calls, {**tensors, "mlp.out": mlp.out}, partway=partway)
            if residual is not None and residual.form != "attention" and _is_last(seen, calls, residual):
                return _FeedForward(mlp, mlp.down_projection, None, residual)
    whole = _whole_mlp(calls, tensors)
    if whole is not None:
        return whole
    residual = find_residual(calls, tensors)
    if not dense:
        return _FeedForward(residual=residual)
    return _FeedForward(dense[0], dense[0].down_projection, None, residual)


def _mixture(
    seen: Probe,
    calls: Sequence[Call],
    mixture: Call,
    dense: Mlp | None,
    tensors: Mapping[str, Tensor],
    *,
    partway: bool,
) -> _FeedForward | None:
    """Experts, in the smallest module whose output the block adds; None where no such module is found."""
    around = [c for c in calls if c.began <= mixture.began and c.ended >= mixture.ended]
    found: list[tuple[float, Call, Tensor, Residual]] = []
    for block in sorted(around[:-1], key=lambda c: c.ended):
        if block.returned is None or block.returned.numel() != tensors["resid.pre"].numel():
            continue
        out = block.returned.reshape(tensors["resid.pre"].shape)
        residual = find_residual(calls, {**tensors, "mlp.out": out}, partway=partway)
        if residual is None or residual.form == "attention" or mixture.returned is None:
            continue
        if not _is_last(seen, calls, residual):
            continue
        error = 0.0 if partway else largest_error(*residual.sides({**tensors, "mlp.out": out}))
        found.append((error, block, out, residual))
    if not found:
        return None
    # Not the first that fits: in half precision a small shared expert more or less is within the tolerance.
    _, block, out, residual = min(found, key=lambda candidate: candidate[0])
    experts, shared = _experts(seen, mixture, dense, out)
    return _FeedForward(shared, block.module, experts, residual)


def _whole_mlp(calls: Sequence[Call], tensors: Mapping[str, Tensor]) -> _FeedForward | None:
    """A module of several parts that gives what the block adds behind attention, whatever is inside (NLLB-MoE)."""
    for call in calls[:-1]:
        if call.returned is None or call.returned.shape != tensors["resid.pre"].shape:
            continue
        if is_linear(call.module) or not any(True for _ in call.module.children()):
            continue
        residual = find_residual(calls, {**tensors, "mlp.out": call.returned})
        # The middle shows that it comes behind attention: a second mixer of tokens stands beside it.
        if residual is not None and residual.form != "attention" and residual.middle is not None:
            return _FeedForward(None, call.module, None, residual)
    return None


def _is_last(seen: Probe, calls: Sequence[Call], residual: Residual) -> bool:
    """Whether no attention follows where the equation ends: LongCat has two pairs of attention and MLP in a block."""
    if residual.end is None:
        return True
    began = next(c.began for c in calls if c.module is residual.end)
    return not any(a.at > began and a.layer == calls[0].layer for a in seen.attending)


def _experts(seen: Probe, mixture: Call, dense: Mlp | None, out: Tensor) -> tuple[Experts | None, Mlp | None]:
    """The experts, alone or with a shared one, that explain the output of their block; else neither."""
    assert mixture.returned is not None
    n_slots = seen.slots[id(mixture.module)]
    found: list[tuple[float, Experts, Mlp | None]] = []
    for shared in (None, dense) if dense else (None,):
        added = shared.out if shared else None
        scale = scale_of(mixture.returned, added, out)
        error = largest_error(*with_shared(scale * mixture.returned, added, out))
        if abs(scale) > SMALLEST_SCALE and error <= LAW[out.dtype]:
            found.append((error, Experts(mixture.module, n_slots, scale), shared))
    if not found:
        return None, None
    # A shared expert can be small beside the tolerance of half precision; what is none explains next to nothing.
    best = found[-1] if found[-1][0] < found[0][0] / 2 else found[0]
    return best[1], best[2]


def _attending(seen: Probe, block: Call, mixer: Callable[[Call], Attending | None]) -> list[Attending]:
    """Attention of a block in the order of computing: to its own stack, then to the encoder; each module once."""
    found = [a for a in seen.attending if a.layer == block.layer]
    if not found and (mixing := mixer(block)) is not None:
        return [mixing]
    first: dict[int, Attending] = {}
    for attending in found:
        first.setdefault(id(attending.module), attending)
    is_decoder = block.layer is not None and block.layer[0] == "dec"
    return list(first.values())[: 2 if is_decoder else 1]


def _output_projection(calls: Iterable[Call], attending: Attending, width: int, named: nn.Module | None) -> Call | None:
    if named is not None:
        return next((c for c in calls if c.module is named and _width(c.returned) == width), None)
    after = [c for c in calls if c.began > attending.at and is_linear(c.module) and _width(c.returned) == width]
    projection = min(after, key=lambda c: c.began, default=None)
    if projection is not None and attending.n_heads and (_width(projection.read) or 0) % attending.n_heads:
        return None
    return projection


def _inside(attention: nn.Module, block: nn.Module) -> set[int]:
    return set() if attention is block else {id(m) for m in attention.modules()}


def _width(x: Tensor | None) -> int | None:
    return None if x is None or x.ndim == 0 else x.shape[-1]
