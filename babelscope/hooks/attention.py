"""Taps that self-attention and attention to the encoder share: `attn.*` and `cross.*` differ in the module alone."""

from collections.abc import Callable
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Attention, Stack
from babelscope.hooks.place import Place
from babelscope.hooks.probe import columns_read
from babelscope.hooks.tap import Tap, Tensors
from babelscope.hooks.tolerance import PASS
from babelscope.qcross.attention import has_cross_query

PROVED = {
    "attn": ("attention", "output projection", "an equation that proves attention"),
    "cross": ("output projection to the encoder", "an equation that proves the MLP"),
}


def attention_at(stack: Stack, site: str, layer: int) -> Attention:
    """The attention that a site such as `attn.out` or `cross.heads` belongs to.

    Raises
    ------
    BabelScopeError
        If the block lacks it, or a part of it that proves the site.
    """
    family = site.partition(".")[0]
    parts = stack.require(site, layer, *PROVED[family])
    found = parts.attention if family == "attn" else parts.cross_attention
    if found is None:
        raise BabelScopeError(
            f"site {site}@{layer}: the blocks of {stack.name} attend to no encoder", f"write attn{site[5:]}"
        )
    return found


def out_tap(family: str) -> Tap:
    """`attn.out` or `cross.out`: what the output projection returns."""
    site = f"{family}.out"

    def place(stack: Stack, layer: int) -> Place:
        projection = attention_at(stack, site, layer).output_projection
        assert projection is not None
        return Place(projection, "output")

    def unit(stack: Stack, layer: int) -> tuple[int, ...]:
        return (stack.width,)

    def law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
        residual = stack.layers[layer].residual
        if residual is None:
            return None
        return residual.middle_sides(seen) if family == "attn" else residual.sides(seen)

    equation = "resid.pre and attn.out give the middle of the block"
    if family == "cross":
        equation = "resid.pre, attn.out, cross.out and mlp.out give resid.post"
    return Tap(site, equation, place, unit, law)


def heads_tap(family: str) -> Tap:
    """`attn.heads` or `cross.heads`: what the output projection reads, one row of it per head."""
    site = f"{family}.heads"

    def place(stack: Stack, layer: int) -> Place:
        if family == "attn":
            stack.require(site, layer, "attention heads")
        projection = attention_at(stack, site, layer).output_projection
        assert projection is not None
        return Place(projection, "input")

    def unit(stack: Stack, layer: int) -> tuple[int, ...]:
        found = attention_at(stack, site, layer)
        assert found.output_projection is not None
        assert found.n_heads is not None
        return found.n_heads, columns_read(found.output_projection) // found.n_heads

    def law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
        projection = attention_at(stack, site, layer).output_projection
        assert projection is not None
        return projection.forward(seen[site].flatten(-2)), seen[f"{family}.out"]

    def heads(x: Tensor, stack: Stack, layer: int) -> Tensor:
        return rearrange(x, "... (head dim) -> ... head dim", head=attention_at(stack, site, layer).n_heads)

    return Tap(site, f"output projection({site}) = {family}.out", place, unit, law, heads)


def handed_over_tap(family: str, name: Literal["query", "key", "value"]) -> Tap:
    """`attn.q`, `attn.k`, `attn.v` and the same of attention to the encoder: one row of a token per head."""
    site = f"{family}.{name[0]}"

    def unit(stack: Stack, layer: int) -> tuple[int, ...]:
        found = attention_at(stack, site, layer)
        shape: tuple[int, int] | None = getattr(found, name)
        if name == "query" and has_cross_query(found.module):
            raise BabelScopeError(
                f"site {site}@{layer}: each token of {stack.name} has two queries, its own and the cross-lingual one",
                f"leave it out; {family}.pattern is that of both, and attn.crossed the share of the second",
            )
        if shape is None:
            raise BabelScopeError(
                f"site {site}@{layer}: not reachable, because the model file of {stack.name} computes attention by "
                "itself instead of handing queries, keys and values to transformers' AttentionInterface",
                f"leave it out; {family}.heads, {family}.pattern and {family}.mass can be reached",
            )
        return shape

    def place(stack: Stack, layer: int) -> Place:
        unit(stack, layer)
        return Place(attention_at(stack, site, layer).module, name)

    def shape_law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor]:
        found = attention_at(stack, site, layer)
        heads, dim = unit(stack, layer)
        expected = (found.n_heads if name == "query" else heads, dim)
        return torch.tensor(seen[site].shape[1:], dtype=torch.float32), torch.tensor(expected, dtype=torch.float32)

    def value_law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor]:
        values, pattern = seen[site], seen[f"{family}.pattern"]
        expected = seen[f"{family}.attended"]
        if attention_at(stack, site, layer).is_read_unchanged:
            expected = seen[f"{family}.heads"]
        if pattern.shape[1] % values.shape[1]:
            return values, expected  # shapes differ, so the law fails
        repeated = values.repeat_interleave(pattern.shape[1] // values.shape[1], 1)
        return torch.einsum("qhk,khd->qhd", pattern, repeated), expected

    if name == "value":
        return Tap(site, f"{family}.pattern x {site} = {family}.heads", place, unit, value_law)
    return Tap(site, f"{site} has the heads and the dim of the model", place, unit, shape_law)


# No score lies so low: model files hide a key with the minimum of some dtype, of which float16 has the largest.
HIDDEN = torch.finfo(torch.float16).min / 2


def softmax_tap(family: str, name: Literal["scores", "pattern"]) -> Tap:
    """`attn.scores` or `attn.pattern`, and the same of attention to the encoder: a row over the keys per head."""
    site = f"{family}.{name}"

    def pattern_law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor]:
        total = seen[site].float().sum(-1) + seen[f"{family}.sinks"].float().sum(-1)
        total = total.to(seen[site].dtype)
        return total, torch.ones_like(total)

    def scores_law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor]:
        weights = seen[site].float().nan_to_num(-torch.inf).softmax(-1)
        on_keys = 1 - seen[f"{family}.sinks"].float().sum(-1, keepdim=True)
        pattern = seen[f"{family}.pattern"]
        return (weights * on_keys).to(pattern.dtype), pattern

    def seen_keys(rows: Tensor, stack: Stack, layer: int) -> Tensor:
        return rows.masked_fill(rows < HIDDEN, torch.nan)

    if name == "pattern":
        equation = f"rows of {site} sum to 1 over the real keys"
        return Tap(site, equation, *_per_head(site, name), pattern_law, beyond=0.0)
    equation = f"softmax({site}) = {family}.pattern"
    return Tap(site, equation, *_per_head(site, name), scores_law, seen_keys, defined=lambda x: x.clamp_min(HIDDEN))


def mass_tap(family: str) -> Tap:
    """`attn.mass` or `cross.mass`: the pattern of each token, summed up (see `mass`)."""
    site = f"{family}.mass"

    def law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor]:
        found, expected = seen[site], seen[f"{family}.reduced"]
        undefined = found.isnan() & expected.isnan()
        # Nats, tokens and shares of 1: where all of a summary is small, as the entropy of one token, one is the scale.
        size = expected.nan_to_num().abs().amax((0, 1)).clamp_min(1)
        sides = ((x / size).masked_fill(undefined, 0).to(seen[f"{family}.pattern"].dtype) for x in (found, expected))
        return next(sides), next(sides)

    equation = f"{site} is the same reduction of {family}.pattern"
    # Without a pattern the model may compute in another order, so the two sides come from two passes.
    # Distances between two stacks and mass on a segment that a prompt lacks are NaN; the first two summaries never are.
    return Tap(site, equation, *_per_head(site, "mass"), law, limits=PASS, defined=lambda x: x[..., :2])


def _per_head(
    site: str, end: Literal["scores", "pattern", "mass"]
) -> tuple[Callable[[Stack, int], Place], Callable[[Stack, int], tuple[int, ...]]]:
    """Place and unit of what attention computes for each query token and head."""

    def unit(stack: Stack, layer: int) -> tuple[int, ...]:
        heads = attention_at(stack, site, layer).n_heads
        if heads is None:
            stack.require(site, layer, "attention heads")
        assert heads is not None
        return (heads,)

    def place(stack: Stack, layer: int) -> Place:
        unit(stack, layer)
        return Place(attention_at(stack, site, layer).module, end)

    return place, unit
