"""How a block adds attention and MLP to the residual stream: four forms, told apart by their values."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from babelscope.hooks.probe import Call, is_linear
from babelscope.hooks.tolerance import agree

# Granite's residual multiplier is 0.22; rounding leaves some 1e-7.
SMALLEST_SCALE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """The equation between what enters a block, what attention and MLP give, and what leaves it.

    - `sum`: post = pre + a attn + m mlp, sequential or parallel, with a = m = 1 but for Granite and its kin.
    - `sandwich`: post = pre + norm_a(attn) + norm_m(mlp), as Gemma 2 and OLMo 2; a missing norm is the identity.
    - `post-norm`: mid = norm_a(pre + attn), post = norm_m(mid + mlp), as BERT.
    - `attention`: only the middle is known; the MLP is of another kind.

    Decoder blocks of an encoder-decoder add attention to the encoder between the two, in the same form.
    `middle` is the module that reads the stream behind attention, where there is one: sequential blocks have it,
    parallel ones do not. It proves attention on its own. `end` is the module that reads the stream behind the MLP in
    blocks that go on to add something else, as Gemma 4 its per-layer inputs and X-MOD its language adapters; the
    equation then ends there instead of at `resid.post`.
    """

    form: Literal["sum", "sandwich", "post-norm", "attention"]
    attention_norm: nn.Module | None = None
    cross_norm: nn.Module | None = None
    mlp_norm: nn.Module | None = None
    attention_scale: float = 1.0
    mlp_scale: float = 1.0
    middle: nn.Module | None = None
    end: nn.Module | None = None

    def middle_sides(self, seen: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Both sides of the equation up to the middle of the block, or of the whole one without a middle."""
        return (self.after_attention(seen), seen["resid.mid"]) if self.middle is not None else self.sides(seen)

    def after_attention(self, seen: Mapping[str, Tensor]) -> Tensor:
        """What the stream holds once attention is added."""
        attention = seen["attn.out"]
        if self.form != "post-norm":
            attention = _apply(self.attention_norm, attention)
        return seen["resid.pre"] + self.attention_scale * attention

    def sides(self, seen: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Both sides of the equation; `seen` maps site kinds, `resid.mid`, `resid.end` to tensors of equal tokens."""
        return self.after_mlp(seen), seen["resid.post" if self.end is None else "resid.end"]

    def after_mlp(self, seen: Mapping[str, Tensor]) -> Tensor:
        """What the stream holds once the MLP is added."""
        stream, mlp = self.after_attention(seen), seen["mlp.out"]
        if self.form == "post-norm":
            stream = _apply(self.attention_norm, stream)
            if "cross.out" in seen:
                stream = _apply(self.cross_norm, stream + seen["cross.out"])
            return _apply(self.mlp_norm, stream + mlp)
        if "cross.out" in seen:
            stream = stream + _apply(self.cross_norm, seen["cross.out"])
        return stream + self.mlp_scale * _apply(self.mlp_norm, mlp)


def _apply(norm: nn.Module | None, x: Tensor) -> Tensor:
    # `forward`, not a call: a call would run the hooks that are listening.
    y: Tensor = x if norm is None else norm.forward(x)
    return y


def find_residual(calls: Sequence[Call], seen: Mapping[str, Tensor], *, partway: bool = False) -> Residual | None:
    """The form that holds in this block, or None.

    Parameters
    ----------
    calls : sequence of Call
        Calls inside the block.
    seen : mapping
        `resid.pre`, `resid.post`, `attn.out` and, where located, `cross.out` and `mlp.out` of the probe.
    partway : bool
        Let the equation end where some module reads the sum, in blocks that add more after the MLP.
    """
    shape = seen["resid.pre"].shape
    fits = all(x.shape[-1] == shape[-1] and x.numel() == shape.numel() for x in seen.values())
    if "attn.out" not in seen or not fits:
        return None
    pre, attention = seen["resid.pre"], seen["attn.out"]
    norms = [c for c in calls if _may_be_norm(c, pre)]
    if "mlp.out" in seen:
        candidates = [Residual("sum"), *_sandwiches(norms, seen), *_post_norms(norms, seen)]
        scaled = _scaled_sum(seen)
        for candidate in [*candidates, *([scaled] if scaled else [])]:
            middle = _reader(norms, candidate.after_attention(seen))
            if not partway and agree(*candidate.sides(seen)):
                return replace(candidate, middle=middle)
            # Without a middle, a second mixer of tokens beside attention (Falcon-H1) would pass for the MLP.
            if partway and middle is not None and (end := _reader(calls, candidate.after_mlp(seen))) is not None:
                return replace(candidate, middle=middle, end=end)
    for norm in (None, *(c.module for c in norms if c.read is not None and torch.equal(c.read, attention))):
        middle = _reader(norms, pre + _apply(norm, attention))
        if middle is not None:
            return Residual("attention", attention_norm=norm, middle=middle)
    return None


def _reader(calls: Sequence[Call], expected: Tensor) -> nn.Module | None:
    return next((c.module for c in calls if c.read is not None and agree(c.read, expected)), None)


def _may_be_norm(call: Call, pre: Tensor) -> bool:
    if call.read is None or call.returned is None or is_linear(call.module):
        return False
    leaf = not any(True for _ in call.module.children())
    same_shape = call.read.shape == pre.shape == call.returned.shape
    if not leaf or not same_shape or isinstance(call.module, nn.Dropout | nn.Identity):
        return False
    if len(_required(call.module)) != 1:
        return False
    again = call.module.forward(call.read)  # as the laws will
    return isinstance(again, Tensor) and agree(again, call.returned)


def _required(module: nn.Module) -> list[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]


def _sandwiches(norms: Sequence[Call], seen: Mapping[str, Tensor]) -> list[Residual]:
    """Every choice of norms that read exactly what a part gave, but for the choice of none."""

    def readers(kind: str) -> list[nn.Module | None]:
        given = seen.get(kind)
        found = [c.module for c in norms if c.read is not None and given is not None and torch.equal(c.read, given)]
        return [*found, None]

    choices = product(readers("attn.out"), readers("cross.out"), readers("mlp.out"))
    return [Residual("sandwich", *norms_chosen) for norms_chosen in choices if any(norms_chosen)]


def _post_norms(norms: Sequence[Call], seen: Mapping[str, Tensor]) -> list[Residual]:
    def behind(stream: Tensor | None, added: Tensor) -> list[Call]:
        if stream is None:
            return []
        return [c for c in norms if c.read is not None and agree(c.read, stream + added)]

    found: list[tuple[Call, Call | None, Call]] = []
    for a in behind(seen["resid.pre"], seen["attn.out"]):
        if "cross.out" in seen:
            crosses = behind(a.returned, seen["cross.out"])
            found += [(a, c, m) for c in crosses for m in behind(c.returned, seen["mlp.out"])]
        else:
            found += [(a, None, m) for m in behind(a.returned, seen["mlp.out"])]
    return [Residual("post-norm", a.module, c.module if c else None, m.module) for a, c, m in found]


def _scaled_sum(seen: Mapping[str, Tensor]) -> Residual | None:
    """The two factors that explain post - pre best; the caller checks that they explain all of it."""
    if "cross.out" in seen:
        return None
    parts = torch.stack([seen["attn.out"].double().flatten(), seen["mlp.out"].double().flatten()], dim=1)
    change = (seen["resid.post"].double() - seen["resid.pre"].double()).flatten()[:, None]
    try:
        a, m = torch.linalg.lstsq(parts.cpu(), change.cpu()).solution[:, 0].tolist()
    except RuntimeError:
        return None
    # A factor of zero would prove nothing of the part it stands before (Reformer adds the MLP to another stream).
    return Residual("sum", attention_scale=a, mlp_scale=m) if min(abs(a), abs(m)) > SMALLEST_SCALE else None
