"""Edits inside attention and experts: against edits of what is computed from them, and against the mathematics."""

from collections.abc import Callable

import pytest
import torch
from model_zoo import HEADS

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel
from babelscope.hooks.interventions import (
    Edit,
    PromptBatch,
    activations,
    edited,
    effect,
    gold_score,
    gradients,
    mean,
    patch,
    read_prompts,
    steer,
    zero,
)
from babelscope.hooks.selftest import count_hooks
from babelscope.hooks.tap import place_of
from babelscope.schema import SITE_KINDS, Position, PromptSet, Site

Load = Callable[[str], LoadedModel]
# Sums of at most 48 float32 products, in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
THROUGH_THE_INTERFACE = ("llama", "gemma2", "gpt2", "opt", "qwen3", "gpt-oss")


def sites_inside(loaded: LoadedModel, *, readable: bool = False) -> list[Site]:
    """Sites inside attention and experts that the model has, in a layer in the middle."""
    kinds = [k for k in SITE_KINDS if k.endswith((".q", ".k", ".v", ".scores", ".pattern"))]
    kinds += ["moe.neurons", "moe.weight"] + (["attn.mass", "cross.mass", "moe.expert"] if readable else [])
    found = []
    for stack in loaded.ref.depths:
        for kind in kinds:
            try:
                place_of(loaded.anatomy, Site(kind, 1, stack))
            except BabelScopeError:
                continue
            found.append(Site(kind, 1, stack))
    return found


@pytest.mark.parametrize("name", [*THROUGH_THE_INTERFACE, "bloom", "falcon", "mt5", "bart", "mixtral"])
def test_an_edit_that_changes_nothing_changes_nothing(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    hooks, attention = count_hooks(loaded.model), loaded.model.config._attn_implementation
    batch = read_prompts(loaded, prompts.prompts[:7], decoder="copy")
    for site in sites_inside(loaded):
        shapes = []

        def look(rows: torch.Tensor, shapes: list[torch.Size] = shapes) -> torch.Tensor:
            shapes.append(rows.shape)
            return rows

        with torch.no_grad():
            own = activations(loaded, batch, [site])[site]
            pattern = {site: Edit(look, Position("all"))}
            found = effect(loaded, batch, pattern)
        tokens = batch.tokens.mask_of(site.row_stack)
        assert shapes == [own.values.shape]
        assert len(own.values) == int(tokens.sum())
        # Scores and patterns need step-by-step attention, which rounds another way than the model's own.
        close = CLOSE if site.kind.endswith(("scores", "pattern")) else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(found.logits_before, found.logits_after, **close)
    assert sites_inside(loaded)
    assert count_hooks(loaded.model) == hooks
    assert loaded.model.config._attn_implementation == attention


@pytest.mark.parametrize("name", [*THROUGH_THE_INTERFACE, "bloom", "falcon", "mt5", "bart"])
def test_no_pattern_and_no_values_are_no_heads(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    batch = read_prompts(loaded, prompts.of("en"), decoder="copy")
    families = [("attn", tag) for tag in loaded.ref.depths] + [("cross", "dec")] * ("dec" in loaded.ref.depths)
    for family, tag in families:
        heads = effect(loaded, batch, {Site(f"{family}.heads", 1, tag): zero()})
        for kind in (f"{family}.pattern", f"{family}.v"):
            if Site(kind, 1, tag) in sites_inside(loaded):
                found = effect(loaded, batch, {Site(kind, 1, tag): zero()})
                torch.testing.assert_close(found.logits_after, heads.logits_after, **CLOSE)
        one = effect(loaded, batch, {Site(f"{family}.heads", 1, tag): zero("last", units=[2])})
        found = effect(loaded, batch, {Site(f"{family}.pattern", 1, tag): zero("last", units=[2])})
        torch.testing.assert_close(found.logits_after, one.logits_after, **CLOSE)
        assert (heads.logits_after - heads.logits_before).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "qwen3"])
def test_without_queries_or_scores_every_visible_key_weighs_the_same(name: str, load: Load, prompts: PromptSet) -> None:
    loaded, pattern = load(name), Site("attn.pattern", 1)
    batch = read_prompts(loaded, prompts.of("en"))
    for kind in ("attn.q", "attn.k", "attn.scores"):
        with edited(loaded, {Site(kind, 1): zero()}, batch):
            found = activations(loaded, batch, [pattern])[pattern]
        longest, row = batch.tokens.mask.shape[1], 0
        for count in found.counts:
            causal = torch.ones(count, longest).tril() / torch.arange(1, count + 1)[:, None]
            for head in range(HEADS):
                torch.testing.assert_close(found.values[row : row + count, head], causal, **CLOSE)
            row += count


def test_a_constant_added_to_scores_changes_nothing_and_one_key_is_its_value(load: Load, prompts: PromptSet) -> None:
    loaded, values, heads = load("gpt2"), Site("attn.v", 1), Site("attn.heads", 1)
    batch = read_prompts(loaded, prompts.of("en"))
    keys = batch.tokens.mask.shape[1]
    found = effect(loaded, batch, {Site("attn.scores", 1): steer(torch.full((HEADS, keys), 3.0), position="last")})
    torch.testing.assert_close(found.logits_after, found.logits_before, **CLOSE)
    first = torch.zeros(HEADS, keys)
    first[:, 0] = 1
    only = Edit(lambda rows: first.to(rows).expand_as(rows), Position("last"))
    with edited(loaded, {Site("attn.pattern", 1): only}, batch):
        seen = activations(loaded, batch, [heads], "last")[heads].values
    expected = activations(loaded, batch, [values], "first")[values].values
    torch.testing.assert_close(seen, expected, **CLOSE)


@pytest.mark.parametrize("name", ["mixtral", "gpt-oss", "qwen3-moe"])
def test_no_weights_and_no_neurons_are_no_experts(name: str, load: Load, prompts: PromptSet) -> None:
    loaded, out = load(name), Site("mlp.out", 1)
    batch = read_prompts(loaded, prompts.of("sw"))
    with edited(loaded, {Site("moe.weight", 1): zero()}, batch):
        assert not activations(loaded, batch, [out])[out].values.any()
    largest = activations(loaded, batch, [out])[out].values.abs().max()
    with edited(loaded, {Site("moe.neurons", 1): zero()}, batch):
        without = activations(loaded, batch, [out])[out].values
    if name != "gpt-oss":  # the down projections of its experts have biases
        assert without.abs().max() < 1e-5 * largest
    # One expert's neurons of the last token: what its slot adds, by hand.
    module = loaded.anatomy.stacks[""].layers[1].experts.module
    sites = [Site(f"moe.{part}", 1) for part in ("neurons", "expert", "weight")] + [out]
    own = activations(loaded, batch, sites, "last")
    neurons, expert, weight, before = (own[s].values for s in sites)
    with edited(loaded, {sites[0]: zero("last", units=[0])}, batch):
        after = activations(loaded, batch, [out], "last")[out].values
    scale = loaded.anatomy.stacks[""].layers[1].experts.scale
    for row in range(len(before)):
        down = module.down_proj[expert[row, 0]]
        added = (neurons[row, 0] @ (down if module.is_transposed else down.T)) * weight[row, 0] * scale
        torch.testing.assert_close(before[row] - after[row], added.detach(), rtol=1e-3, atol=1e-5 * float(largest))


@pytest.mark.parametrize("name", ["llama", "mt5", "mixtral", "bloom"])
def test_every_readable_site_is_read_as_shaped(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    batch = read_prompts(loaded, prompts.of("en"), decoder="copy")
    sites = sites_inside(loaded, readable=True)
    found = activations(loaded, batch, sites)
    for site in sites:
        x = found[site]
        assert len(x.values) == sum(x.counts) == int(batch.tokens.mask_of(site.row_stack).sum())
        lengths = torch.repeat_interleave(batch.tokens.key_mask(site).sum(1), torch.tensor(x.counts))
        if "key" in site.axes:
            beyond = torch.arange(x.values.shape[-1]) >= lengths[:, None]
            outside = x.values.transpose(0, 1)[:, beyond]
            assert bool((outside == 0).all() if site.kind.endswith("pattern") else outside.isnan().all())
        if site.kind.endswith("mass"):  # entropy, first token, distance, question
            pattern = activations(loaded, batch, [s := Site(site.kind.replace("mass", "pattern"), 1, site.stack)])[s]
            torch.testing.assert_close(x.values[..., 1], pattern.values[..., 0], rtol=1e-3, atol=1e-5)
            assert x.values.shape[-1] == 4
            assert x.values[..., 3].isfinite().all()


def test_of_nested_edits_the_outer_one_comes_first_and_what_is_read_is_edited(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    batch = read_prompts(loaded, prompts.of("en"))
    for kind in ("attn.q", "attn.scores", "attn.pattern", "attn.heads"):
        site = Site(kind, 1)
        own = activations(loaded, batch, [site], "last")[site]
        both = {site: Edit(lambda rows: rows * 0.5, Position("last"))}, {site: Edit(lambda r: r + 1, Position("last"))}
        with edited(loaded, both[0], batch), edited(loaded, both[1], batch):
            found = activations(loaded, batch, [site], "last")[site].values
        seen = own.values != 0 if kind == "attn.pattern" else ~own.values.isnan()
        torch.testing.assert_close(found[seen], (own.values * 0.5 + 1)[seen], **CLOSE)


def test_a_mean_of_scores_is_over_the_rows_that_see_the_key(load: Load, prompts: PromptSet) -> None:
    loaded, site = load("llama"), Site("attn.scores", 1)
    batch = read_prompts(loaded, prompts.of("en"))
    source = activations(loaded, batch, [site])[site]
    with edited(loaded, {site: mean(source, "last")}, batch):
        found = activations(loaded, batch, [site], "last")[site].values
    for key in (0, 3):
        seen = source.values[:, :, key]
        expected = torch.stack([seen[~seen[:, h].isnan(), h].double().mean() for h in range(HEADS)])
        torch.testing.assert_close(found[0, :, key].double(), expected, **CLOSE)
    shorter = read_prompts(loaded, prompts.of("en")[:1])
    few = activations(loaded, shorter, [site], "last")[site]
    with pytest.raises(BabelScopeError, match="turned rows of shape"):
        effect(loaded, read_prompts(loaded, prompts.of("en")[4:]), {site: patch(few)})


@pytest.mark.parametrize(
    ("name", "site", "instead"),
    [("llama", "attn.mass@1", "attn.pattern@1"), ("mt5", "dec.cross.mass@0", "dec.cross.pattern@0"),
     ("mixtral", "moe.expert@1", "moe.weight@1")],
)  # fmt: skip
def test_a_summary_and_an_index_are_refused_by_name_with_what_to_use(
    name: str, site: str, instead: str, load: Load, prompts: PromptSet
) -> None:
    loaded, where = load(name), Site.parse(site)
    batch: PromptBatch = read_prompts(loaded, prompts.of("en"))
    for attempt in (
        lambda: effect(loaded, batch, {where: zero()}),
        lambda: gradients(loaded, batch, [where], gold_score(loaded, batch)),
    ):
        with pytest.raises(BabelScopeError, match=f"site {site} of {loaded.anatomy.name} cannot be edited") as caught:
            attempt()
        assert instead in caught.value.hint


@pytest.mark.parametrize("name", ["bloom", "falcon"])
def test_what_a_model_file_does_not_hand_over_is_not_reachable(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    with pytest.raises(BabelScopeError, match=r"attn\.q@1: not reachable, because"):
        effect(loaded, read_prompts(loaded, prompts.of("en")), {Site("attn.q", 1): zero()})
