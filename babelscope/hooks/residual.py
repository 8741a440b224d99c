"""How a block adds its attention and its MLP to the residual stream: four forms, told apart by their values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from babelscope.hooks.probe import Call, is_linear
from babelscope.hooks.tolerance import agree


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """The equation between what enters a block, what attention and MLP give, and what leaves it.

    - `sum`: post = pre + a attn + m mlp, sequential or parallel, with a = m = 1 but for Granite and its kin.
    - `sandwich`: post = pre + norm_a(attn) + norm_m(mlp), as Gemma 2 and OLMo 2; a missing norm is the identity.
    - `post-norm`: mid = norm_a(pre + attn), post = norm_m(mid + mlp), as BERT.
    - `attention`: only the middle is known; the MLP is of another kind (experts).

    `middle` is the module that reads the stream between attention and MLP, where there is one: sequential
    blocks have it, parallel ones do not. It proves attention on its own.
    """

    form: Literal["sum", "sandwich", "post-norm", "attention"]
    attention_norm: nn.Module | None = None
    mlp_norm: nn.Module | None = None
    attention_scale: float = 1.0
    mlp_scale: float = 1.0
    middle: nn.Module | None = None

    def middle_sides(self, seen: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Both sides of the equation up to the middle of the block, or of the whole one without a middle."""
        return (self.after_attention(seen), seen["resid.mid"]) if self.middle is not None else self.sides(seen)

    def after_attention(self, seen: Mapping[str, Tensor]) -> Tensor:
        """What the stream holds once attention is added."""
        attention = seen["attn.out"]
        if self.form == "sandwich":
            attention = _apply(self.attention_norm, attention)
        return seen["resid.pre"] + self.attention_scale * attention

    def sides(self, seen: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Both sides of the equation; `seen` maps site kinds (and `resid.mid`) to tensors of the same tokens."""
        middle, mlp, post = self.after_attention(seen), seen["mlp.out"], seen["resid.post"]
        if self.form == "post-norm":
            return _apply(self.mlp_norm, _apply(self.attention_norm, middle) + mlp), post
        if self.form == "sandwich":
            mlp = _apply(self.mlp_norm, mlp)
        return middle + self.mlp_scale * mlp, post


def _apply(norm: nn.Module | None, x: Tensor) -> Tensor:
    # `forward`, not a call: a call would run the hooks that are listening.
    y: Tensor = x if norm is None else norm.forward(x)
    return y


def find_residual(calls: Sequence[Call], seen: Mapping[str, Tensor]) -> Residual | None:
    """The form that holds in this block, or None.

    Parameters
    ----------
    calls : sequence of Call
        Calls inside the block.
    seen : mapping
        `resid.pre`, `resid.post`, `attn.out` and, where located, `mlp.out` of the probe.
    """
    if "attn.out" not in seen:
        return None
    pre, attention, post = seen["resid.pre"], seen["attn.out"], seen["resid.post"]
    norms = [c for c in calls if _may_be_norm(c, pre)]
    if "mlp.out" in seen:
        mlp = seen["mlp.out"]
        candidates = [Residual("sum"), *_sandwiches(norms, attention, mlp), *_post_norms(norms, pre, attention, mlp)]
        scaled = _scaled_sum(pre, attention, mlp, post)
        for candidate in [*candidates, *([scaled] if scaled else [])]:
            if agree(*candidate.sides(seen)):
                return replace(candidate, middle=_middle(norms, candidate.after_attention(seen)))
    middle = _middle(norms, pre + attention)
    return Residual("attention", middle=middle) if middle is not None else None


def _middle(norms: Sequence[Call], expected: Tensor) -> nn.Module | None:
    return next((c.module for c in norms if c.read is not None and agree(c.read, expected)), None)


def _may_be_norm(call: Call, pre: Tensor) -> bool:
    if call.read is None or call.returned is None or is_linear(call.module):
        return False
    leaf = not any(True for _ in call.module.children())
    same_shape = call.read.shape == pre.shape == call.returned.shape
    return leaf and same_shape and not isinstance(call.module, nn.Dropout | nn.Identity)


def _sandwiches(norms: Sequence[Call], attention: Tensor, mlp: Tensor) -> list[Residual]:
    after_attention = [c.module for c in norms if torch.equal(c.read, attention)]  # type: ignore[arg-type]
    after_mlp = [c.module for c in norms if torch.equal(c.read, mlp)]  # type: ignore[arg-type]
    pairs = [(a, m) for a in [*after_attention, None] for m in [*after_mlp, None] if a is not None or m is not None]
    return [Residual("sandwich", a, m) for a, m in pairs]


def _post_norms(norms: Sequence[Call], pre: Tensor, attention: Tensor, mlp: Tensor) -> list[Residual]:
    first = [c for c in norms if agree(c.read, pre + attention)]  # type: ignore[arg-type]
    return [
        Residual("post-norm", a.module, m.module)
        for a in first
        for m in norms
        if a.returned is not None and agree(m.read, a.returned + mlp)  # type: ignore[arg-type]
    ]


def _scaled_sum(pre: Tensor, attention: Tensor, mlp: Tensor, post: Tensor) -> Residual | None:
    """The two factors that explain post - pre best; the caller checks that they explain all of it."""
    parts = torch.stack([attention.double().flatten(), mlp.double().flatten()], dim=1)
    change = (post.double() - pre.double()).flatten()[:, None]
    try:
        a, m = torch.linalg.lstsq(parts.cpu(), change.cpu()).solution[:, 0].tolist()
    except RuntimeError:
        return None
    return Residual("sum", attention_scale=a, mlp_scale=m)
