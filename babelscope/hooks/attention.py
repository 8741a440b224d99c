"""Taps that self-attention and attention to the encoder share: `attn.*` and `cross.*` differ in the module alone."""

from einops import rearrange
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Attention, Stack
from babelscope.hooks.place import Place
from babelscope.hooks.probe import columns_read
from babelscope.hooks.tap import Tap, Tensors

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
