"""The joint attention against a naive sum of exponentials in float64, and its masks against a slow loop."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from babelscope.qcross.config import QcrossConfig
from babelscope.qcross.forms import FORMS, Joint, attend, cross_share
from babelscope.qcross.masks import PADDING, Masks, language_masks

# ids of each prompt: two languages, three in turns, one alone, padding on the left and on the right
IDS = torch.tensor([
    [0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 0, 1, 2, 2], [5, 5, 5, 5, 5, 5, 5],
    [-1, -1, 3, 3, 4, 4, 4], [2, 2, 7, 7, 7, -1, -1],
])  # fmt: skip


def naive(joint: Joint) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (prompt, query, head, dim) and the share of the cross-lingual query, as the paper writes them."""
    own = joint.query @ joint.key.transpose(-1, -2) * joint.scale
    cross = joint.cross @ joint.key.transpose(-1, -2) * joint.scale
    allowed = torch.ones_like(joint.masks.own) if joint.allowed is None else joint.allowed
    own = own.exp() * (joint.masks.own & allowed)
    cross = cross.exp() * (joint.masks.cross & allowed)
    if not joint.double_count:
        half = 1 - 0.5 * (joint.masks.own & joint.masks.cross)
        own, cross = own * half, cross * half
    total = (own + cross).sum(-1, keepdim=True)
    return ((own + cross) / total @ joint.value).transpose(1, 2), (cross / total).sum(-1).transpose(1, 2)


def make(masks: Masks, *, causal: bool, double_count: bool, dtype=torch.float64, seed: int = 0) -> Joint:
    generator = torch.Generator().manual_seed(seed)
    n, length = masks.own.shape[0], masks.own.shape[-1]
    q, c, k, v = (torch.randn(n, 3, length, 8, generator=generator, dtype=torch.float64) for _ in range(4))
    allowed = (IDS[:n, :length] != PADDING)[:, None, None, :].expand(n, 1, length, length)
    if causal:
        allowed = allowed & torch.ones(length, length, dtype=torch.bool).tril()
    # What padding before the first real token computes nobody reads, but 0 / 0 would spoil the reference's gradients.
    nothing = ~(allowed & (masks.own | masks.cross)).any(-1, keepdim=True)
    allowed = allowed | (nothing & torch.eye(length, dtype=torch.bool))
    return Joint(*(x.to(dtype).requires_grad_() for x in (q, c, k, v)), masks, allowed, 8**-0.5, double_count)


def real(x: torch.Tensor) -> torch.Tensor:
    return x[(IDS != PADDING)]


def kept(form: str) -> tuple[float, float]:
    return (0.0, 0.0) if form == "partition" else (0.4, 0.3)


@pytest.mark.parametrize(("form", "causal", "double"), [*itertools.product(FORMS, (False, True), (False, True))])
def test_every_form_and_its_gradients_are_the_sum_of_exponentials(form: str, causal: bool, double: bool) -> None:
    a, b = kept(form)
    masks = language_masks(IDS, keep_cross=a, keep_same=b, generator=torch.Generator().manual_seed(7))
    joint = make(masks, causal=causal, double_count=double)
    weight = torch.randn(IDS.shape[0], IDS.shape[1], 3, 8, generator=torch.Generator().manual_seed(3))
    weight = weight * (IDS != PADDING)[..., None, None]
    expected = naive(joint)[0].nan_to_num()
    (expected * weight).sum().backward()
    slow = [x.grad.clone() for x in joint[:4]]
    for x in joint[:4]:
        x.grad = None
    found, pattern = attend(joint, form)
    (found * weight).sum().backward()
    # logaddexp and partition compute scores in float32 on purpose: 1e-6 is what that leaves.
    limit = {"atol": 1e-12, "rtol": 1e-10} if form == "doubled" else {"atol": 2e-6, "rtol": 1e-5}
    torch.testing.assert_close(real(found), real(expected).to(found.dtype), **limit)
    for fast, reference in zip(joint[:4], slow, strict=True):
        torch.testing.assert_close(fast.grad, reference, **limit)
    if pattern is not None:
        torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))


@pytest.mark.parametrize("double", [False, True])
def test_the_share_of_the_cross_lingual_query_is_counted(double: bool) -> None:
    masks = language_masks(IDS, keep_cross=0.4, keep_same=0.3, generator=torch.Generator().manual_seed(7))
    joint = make(masks, causal=False, double_count=double)
    torch.testing.assert_close(real(cross_share(joint)).double(), real(naive(joint)[1]), atol=1e-6, rtol=1e-5)
    assert (cross_share(joint)[2] == 0).all()  # a prompt of one language
    assert (real(cross_share(joint))[0] > 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_finite_at_scores_that_overflow_an_exponential(form: str) -> None:
    masks = language_masks(IDS)
    for dtype in (torch.float16, torch.bfloat16):
        joint = make(masks, causal=False, double_count=True, dtype=dtype)
        big = joint._replace(query=joint.query.detach() * 40, cross=joint.cross.detach() * 40)
        found, _ = attend(big, form)
        assert found.dtype == dtype
        assert found.isfinite().all()


def test_with_equal_queries_and_open_masks_attention_is_the_ordinary_one() -> None:
    """Identity (i) of the method sheet, section 3."""
    joint = make(language_masks(IDS, keep_cross=1, keep_same=1), causal=False, double_count=True)
    joint = joint._replace(cross=joint.query)
    scores = joint.query @ joint.key.transpose(-1, -2) * joint.scale
    plain = scores.masked_fill(~joint.allowed, -torch.inf).softmax(-1) @ joint.value
    for form in ("logaddexp", "doubled"):
        torch.testing.assert_close(attend(joint, form)[0], plain.transpose(1, 2).contiguous(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_with_equal_queries_and_separate_masks_the_bridge_gains_log_two(form: str) -> None:
    """Identity (ii): log 2 on the bridge for every other token, and none with the corrected count."""
    joint = make(language_masks(IDS), causal=False, double_count=True)._replace()
    joint = joint._replace(cross=joint.query)
    scores = (joint.query @ joint.key.transpose(-1, -2) * joint.scale).masked_fill(~joint.allowed, -torch.inf)
    plain = (scores.softmax(-1) @ joint.value).transpose(1, 2)
    gained = scores.clone()
    for row, bridge in enumerate(joint.masks.bridge.tolist()):
        if bridge >= 0:
            gained[row, :, torch.arange(7) != bridge, bridge] += math.log(2)
    expected = (gained.softmax(-1) @ joint.value).transpose(1, 2)
    torch.testing.assert_close(real(attend(joint, form)[0]), real(expected), atol=2e-6, rtol=1e-5)
    corrected = attend(joint._replace(double_count=False), form)[0]
    torch.testing.assert_close(real(corrected), real(plain), atol=2e-6, rtol=1e-5)
    assert (real(expected) - real(plain)).abs().max() > 0.01


def slow_masks(ids: list[list[int]]) -> tuple[list, list, list]:
    own, cross, bridges = [], [], []
    for row in ids:
        first = next(i for i, x in enumerate(row) if x != PADDING)
        mono = len({x for x in row if x != PADDING}) == 1
        bridges.append(-1 if mono else first)
        own.append([[mono or a == b or first in (i, j) for j, b in enumerate(row)] for i, a in enumerate(row)])
        cross.append([[not mono and (a != b or first in (i, j)) for j, b in enumerate(row)] for i, a in enumerate(row)])
    return own, cross, bridges


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 8).flatmap(lambda n: st.lists(
    st.lists(st.integers(0, 2), min_size=n, max_size=n).flatmap(
        lambda row: st.integers(-len(row) + 1, len(row) - 1).map(
            lambda k: row[:k] + [PADDING] * (len(row) - k) if k > 0 else [PADDING] * -k + row[: len(row) + k]
        )
    ), min_size=1, max_size=3,
)))  # fmt: skip
def test_masks_are_those_of_a_slow_loop(ids: list[list[int]]) -> None:
    found = language_masks(torch.tensor(ids))
    own, cross, bridges = slow_masks(ids)
    assert found.own[:, 0].tolist() == own
    assert found.cross[:, 0].tolist() == cross
    assert found.bridge.tolist() == bridges


def test_keep_probabilities_open_only_what_they_are_named_for() -> None:
    ids = torch.tensor([[0] * 60 + [1] * 60])
    same = ids[:, :, None] == ids[:, None, :]
    off_bridge = torch.ones_like(same)
    off_bridge[:, 0] = off_bridge[:, :, 0] = False
    masks = language_masks(ids, keep_cross=0.3, keep_same=0.7, generator=torch.Generator().manual_seed(0))
    own, cross = masks.own[:, 0][off_bridge], masks.cross[:, 0][off_bridge]
    same = same[off_bridge]
    assert own[same].all()
    assert cross[~same].all()
    # 7,000 draws each: four standard errors are .022.
    assert own[~same].float().mean().item() == pytest.approx(0.3, abs=0.022)
    assert cross[same].float().mean().item() == pytest.approx(0.7, abs=0.022)
    drawn = language_masks(ids, keep_cross=0.3, generator=torch.Generator().manual_seed(0)).own[0, 0]
    assert (drawn != drawn.T).any()  # i to j and j to i are drawn apart


def test_a_partition_cannot_keep_anything() -> None:
    with pytest.raises(ValueError, match="form partition needs every keep probability at 0"):
        QcrossConfig(form="partition", keep_cross=0.3)
