"""A site: one tensor of the forward pass, `kind@layer`, the same name in every model family."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from babelscope.errors import BabelScopeError, unknown_name


@dataclass(frozen=True, slots=True)
class SiteKind:
    """What a kind of site holds: its axes after (layer, item) and whether it exists once per layer.

    The extents of `key` and `summary` depend on the prompts, those of all other axes on the model alone.
    """

    axes: tuple[str, ...]
    tensor: str
    per_layer: bool = True


SITE_KINDS: Mapping[str, SiteKind] = MappingProxyType(
    {
        "embed": SiteKind(("dim",), "output of the embedding, what block 0 reads", per_layer=False),
        "resid.pre": SiteKind(("dim",), "input of the block"),
        "resid.post": SiteKind(("dim",), "output of the block, before the final norm"),
        "attn.out": SiteKind(("dim",), "what attention adds to the residual stream"),
        "mlp.out": SiteKind(("dim",), "what the MLP adds to the residual stream"),
        "mlp.act": SiteKind(("neuron",), "output of the non-linearity"),
        "mlp.neurons": SiteKind(("neuron",), "input of the down projection"),
        "attn.heads": SiteKind(("head", "dim"), "per-head output before the output projection"),
        "attn.q": SiteKind(("head", "dim"), "queries as they enter the dot product, behind norms and rotations"),
        "attn.k": SiteKind(("head", "dim"), "keys as they enter the dot product; heads of their own number"),
        "attn.v": SiteKind(("head", "dim"), "values that the pattern averages; as many heads as keys"),
        "attn.scores": SiteKind(("head", "key"), "input of the softmax; NaN for keys that the token cannot see"),
        "attn.pattern": SiteKind(("head", "key"), "attention weights of a token over the keys; 0 beyond its prompt"),
        "attn.mass": SiteKind(("head", "summary"), "entropy, mean distance, mass on the first token and on segments"),
        "attn.crossed": SiteKind(("head",), "share of the pattern that a cross-lingual query gives (Qcross)"),
        "moe.neurons": SiteKind(
            ("expert_slot", "neuron"), "input of the down projection of each expert that reads the token"
        ),
        "moe.expert": SiteKind(("expert_slot",), "index of the expert in each slot, in the router's order"),
        "moe.weight": SiteKind(("expert_slot",), "weight of the expert in each slot"),
        "cross.out": SiteKind(("dim",), "what attention to the encoder adds to the residual stream"),
        "cross.heads": SiteKind(("head", "dim"), "per-head output of attention to the encoder"),
        "cross.q": SiteKind(("head", "dim"), "queries of attention to the encoder"),
        "cross.k": SiteKind(("head", "dim"), "keys that the decoder reads from the encoder, a row per encoder token"),
        "cross.v": SiteKind(("head", "dim"), "values that the decoder reads from the encoder, a row per encoder token"),
        "cross.scores": SiteKind(("head", "key"), "input of the softmax over encoder tokens"),
        "cross.pattern": SiteKind(("head", "key"), "attention weights of a decoder token over encoder tokens"),
        "cross.mass": SiteKind(("head", "summary"), "entropy of attention to the encoder, mass on its segments"),
    }
)

_SITE = re.compile(r"(?:(enc|dec)\.)?([a-z.]+?)(?:@(.+))?\Z")


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One tensor of the forward pass. `str(site)` and `Site.parse` are inverse.

    Parameters
    ----------
    kind : str
        A key of `SITE_KINDS`.
    layer : int or None
        Zero-based block; None for kinds that exist once per model (`embed`).
    stack : str
        "" in models with one stack, "enc" or "dec" in encoder-decoders.
    """

    kind: str
    layer: int | None = None
    stack: str = ""

    def __str__(self) -> str:
        name = f"{self.stack}.{self.kind}" if self.stack else self.kind
        return name if self.layer is None else f"{name}@{self.layer}"

    @property
    def name(self) -> str:
        """The site without its layer: what one stored dataset holds, over all its layers."""
        return f"{self.stack}.{self.kind}" if self.stack else self.kind

    @property
    def row_stack(self) -> str:
        """The stack whose tokens the rows are: keys and values of attention to the encoder belong to its tokens."""
        return "enc" if self.kind in ("cross.k", "cross.v") else self.stack

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of one row."""
        return SITE_KINDS[self.kind].axes

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read `kind` or `kind@layer`.

        Raises
        ------
        BabelScopeError
            If the kind is unknown or the layer is not a whole number.
        """
        stack, kind, layer = split_site(text)
        if not SITE_KINDS[kind].per_layer:
            if layer is not None:
                raise BabelScopeError(f"site {text!r}: {kind} has no layers", f"write {kind}")
            return cls(kind, None, stack)
        if layer is None or not layer.isdecimal():
            raise BabelScopeError(f"site {text!r} needs one layer", f"write {kind}@0")
        return cls(kind, int(layer), stack)


def split_site(text: str) -> tuple[str, str, str | None]:
    """Stack, kind and the unparsed layer part of a site expression; the kind is known to exist."""
    match = _SITE.match(text.strip())
    if match is None or match[2] not in SITE_KINDS:
        raise unknown_name("site", text.split("@")[0], SITE_KINDS, "cli.py ls sites")
    return match[1] or "", match[2], match[3]


def expand_sites(expressions: Iterable[str], depths: int | Mapping[str, int]) -> tuple[Site, ...]:
    """Sites named by expressions such as `resid.post`, `mlp.act@3`, `mlp.act@0,4` and `resid.pre@2:6`.

    No layer part means every layer; negative layers count from the end; `a:b` excludes b.

    Parameters
    ----------
    expressions : iterable of str
        What the user typed.
    depths : int or mapping
        Number of blocks of the model (or of the store), per stack where it has two: {"enc": 6, "dec": 6}.

    Returns
    -------
    tuple of Site
        Each site once, ordered by first mention, then by layer.

    Raises
    ------
    BabelScopeError
        If a kind is unknown, a layer lies outside [-n, n) of n blocks, or the stack is not one of the model.
    """
    stacks = {"": depths} if isinstance(depths, int) else depths
    found: dict[Site, None] = {}
    for text in expressions:
        stack, kind, layers = split_site(text)
        if stack not in stacks:
            raise _wrong_stack(text, stack, stacks)
        if not SITE_KINDS[kind].per_layer:
            found[Site.parse(text)] = None
            continue
        for layer in _layers(text, layers, stacks[stack]):
            found[Site(kind, layer, stack)] = None
    return tuple(found)


def _wrong_stack(text: str, stack: str, stacks: Mapping[str, int]) -> BabelScopeError:
    if stack:
        return BabelScopeError(
            f"site {text!r}: this model has one stack only", f"write {text.strip().removeprefix(stack + '.')}"
        )
    return BabelScopeError(
        f"site {text!r}: this model has an encoder and a decoder", f"write enc.{text.strip()} or dec.{text.strip()}"
    )


def _layers(text: str, expression: str | None, n_layers: int) -> list[int]:
    if expression is None:
        return list(range(n_layers))
    chosen: set[int] = set()
    for part in expression.split(","):
        bounds = part.split(":")
        try:
            numbers = [int(b) if b.strip() else None for b in bounds]
        except ValueError:
            numbers = []
        if len(numbers) == 2:
            chosen.update(range(n_layers)[numbers[0] : numbers[1]])
        elif len(numbers) == 1 and numbers[0] is not None and -n_layers <= numbers[0] < n_layers:
            chosen.add(numbers[0] % n_layers)
        else:
            raise BabelScopeError(
                f"site {text!r}: layer {part!r} is not one of the {n_layers} layers",
                f"layers are 0 to {n_layers - 1}, as @3, @0,4, @2:6 or @-1",
            )
    if not chosen:
        raise BabelScopeError(f"site {text!r} names no layer", f"layers are 0 to {n_layers - 1}")
    return sorted(chosen)
