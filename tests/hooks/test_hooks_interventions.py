"""Edits do to a model what doing it by hand does, and leave nothing behind."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from model_zoo import DECODERS, FAMILIES, HEADS, WIDTH
from torch import nn
from transformers.pytorch_utils import Conv1D

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, make_plan, run_plan
from babelscope.hooks.backends.torch import forward
from babelscope.hooks.interventions import (
    Edit,
    activations,
    edited,
    effect,
    mean,
    next_logits,
    option_scores,
    patch,
    read_prompts,
    resample,
    steer,
    zero,
)
from babelscope.hooks.selftest import count_hooks
from babelscope.schema import Position, Prompt, PromptSet, Site

Load = Callable[[str], LoadedModel]
# The same products in the same shapes, but zeroed weights instead of zeroed activations: float32 sums of 48 terms.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
SITES = ("embed", "resid.pre@1", "attn.out@1", "attn.heads@1", "mlp.act@1", "mlp.neurons@1", "mlp.out@1",
         "resid.post@1")  # fmt: skip


def last_logits(model: nn.Module, loaded: LoadedModel, prompt: Prompt) -> torch.Tensor:
    """One prompt alone through a plain model."""
    ids = torch.tensor([loaded.tokenizer(prompt.text)["input_ids"]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0, -1]


def without(loaded: LoadedModel, path: str, columns: list[int] | None, *, bias: bool) -> nn.Module:
    """A copy of the model in which a linear ignores some of its inputs, and its bias if told so."""
    model = copy.deepcopy(loaded.model)
    linear = model.get_submodule(path)
    weight = linear.weight.data
    chosen = slice(None) if columns is None else columns
    if isinstance(linear, Conv1D):
        weight[chosen] = 0
    else:
        weight[:, chosen] = 0
    if bias and linear.bias is not None:
        linear.bias.data.zero_()
    return model


@pytest.mark.parametrize("name", DECODERS)
def test_zeroing_what_the_mlp_adds_removes_its_term(name: str, load: Load, prompts: PromptSet) -> None:
    loaded, family = load(name), FAMILIES[name]
    hooks, batch = count_hooks(loaded.model), read_prompts(loaded, prompts.prompts)
    found = effect(loaded, batch, {Site("mlp.out", 1): zero()})
    model = without(loaded, f"{family.layers}.1.{family.down}", None, bias=True)
    for row, prompt in enumerate(prompts.prompts):
        torch.testing.assert_close(found.logits_before[row], last_logits(loaded.model, loaded, prompt), **CLOSE)
        torch.testing.assert_close(found.logits_after[row], last_logits(model, loaded, prompt), **CLOSE)
    assert (found.logits_before - found.logits_after).abs().max() > 1e-2
    assert count_hooks(loaded.model) == hooks


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("kind", ["mlp.neurons", "attn.heads"])
def test_zeroing_neurons_and_heads_is_ignoring_their_columns(
    name: str, kind: str, load: Load, prompts: PromptSet
) -> None:
    loaded, family = load(name), FAMILIES[name]
    if kind == "mlp.neurons":
        units, path = [3, 40], family.down
        columns = units
    else:
        units, path = [2], family.attention_out
        width = loaded.anatomy.stacks[""].layers[1].attention.output_projection.weight
        n = width.shape[0 if name == "gpt2" else 1] // HEADS
        columns = list(range(2 * n, 3 * n))
    found = effect(loaded, read_prompts(loaded, prompts.of("sw")), {Site(kind, 1): zero(units=units)})
    model = without(loaded, f"{family.layers}.1.{path}", columns, bias=False)
    for row, prompt in enumerate(prompts.of("sw")):
        torch.testing.assert_close(found.logits_after[row], last_logits(model, loaded, prompt), **CLOSE)
    assert (found.logits_before - found.logits_after).abs().max() > 1e-3


@pytest.mark.parametrize("name", [*DECODERS, "bert"])
@pytest.mark.parametrize("site", SITES)
def test_an_edit_that_changes_nothing_changes_nothing(name: str, site: str, load: Load, prompts: PromptSet) -> None:
    loaded, seen = load(name), []
    batch = read_prompts(loaded, prompts.prompts)

    def look(rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows.shape)
        return rows

    with torch.no_grad():
        before = forward(loaded, batch.tokens, head=True).logits
        with edited(loaded, {Site.parse(site): Edit(look, Position("all"))}, batch):
            after = forward(loaded, batch.tokens, head=True).logits
    assert torch.equal(before, after)
    (shape,) = seen
    assert shape[0] == int(batch.tokens.mask.sum())  # real tokens alone
    own = activations(loaded, batch, [Site.parse(site)])[Site.parse(site)]
    assert shape == own.values.shape


@pytest.mark.parametrize("name", DECODERS)
def test_the_stream_of_another_prompt_gives_the_answer_of_that_prompt(
    name: str, load: Load, prompts: PromptSet
) -> None:
    loaded, site = load(name), Site("resid.post", 2)
    here, there = read_prompts(loaded, prompts.of("en")), read_prompts(loaded, prompts.of("zh"))
    own, other = (activations(loaded, b, [site], "last")[site] for b in (here, there))
    same = effect(loaded, here, {site: patch(own)})
    assert torch.equal(same.logits_before, same.logits_after)
    found = effect(loaded, here, {site: patch(other)})
    with torch.no_grad():
        expected = next_logits(loaded, there)
    # The final norm and the unembedding read single tokens; only the shape of the batch differs.
    torch.testing.assert_close(found.logits_after, expected, **CLOSE)
    assert (found.logits_before - expected).abs().max() > 1e-2


def test_a_patch_below_is_what_is_captured_above(load: Load, prompts: PromptSet) -> None:
    loaded, below, above = load("llama"), Site("resid.post", 0), Site("resid.pre", 1)
    here, there = read_prompts(loaded, prompts.of("en")), read_prompts(loaded, prompts.of("sw"))
    other = activations(loaded, there, [below], "first")[below]
    with edited(loaded, {below: patch(other)}, here):
        found = activations(loaded, here, [above])[above]
    plain = activations(loaded, here, [above])[above]
    firsts = torch.tensor([0, *np.cumsum(found.counts)[:-1]])
    assert torch.equal(found.values[firsts], other.values)
    rest = torch.ones(len(found.values), dtype=torch.bool).index_fill(0, firsts, False)
    assert torch.equal(found.values[rest], plain.values[rest])


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "opt"])
def test_steering_adds_the_vector_to_the_stream_and_is_linear_there(name: str, load: Load, prompts: PromptSet) -> None:
    loaded, below, above = load(name), Site("mlp.out", 1), Site("resid.post", 1)
    batch = read_prompts(loaded, prompts.prompts)
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))

    def steered(*edits: Edit) -> torch.Tensor:
        site = below
        with edited(loaded, {site: edits[0]}, batch), edited(loaded, {site: edits[-1]} if edits[1:] else {}, batch):
            return activations(loaded, batch, [above], "last")[above].values

    plain = activations(loaded, batch, [above], "last")[above].values
    # One or two float32 additions to values of size 10.
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(steered(steer(vector)) - plain, vector.expand_as(plain), **close)
    torch.testing.assert_close(steered(steer(vector, -2.5)) - plain, -2.5 * vector.expand_as(plain), **close)
    torch.testing.assert_close(steered(steer(vector, 2), steer(vector, -1)), steered(steer(vector)), **close)
    assert torch.equal(steered(steer(vector, 0.0)), plain)


def test_means_are_over_real_tokens_only(load: Load, prompts: PromptSet) -> None:
    loaded, site = load("gpt2"), Site("mlp.neurons", 1)
    batch = read_prompts(loaded, prompts.prompts)
    source = activations(loaded, batch, [site])[site]
    alone = []
    for prompt in prompts.prompts:
        one = read_prompts(loaded, [prompt])
        alone.append(activations(loaded, one, [site])[site].values)
    expected = torch.cat(alone).double().mean(0)
    with edited(loaded, {site: mean(source, units=[0, 5])}, batch):
        found = activations(loaded, batch, [site])[site].values
    # float32 activations from passes of another shape.
    torch.testing.assert_close(found[:, [0, 5]].double(), expected[[0, 5]].expand(len(found), 2), rtol=1e-4, atol=1e-6)
    others = [i for i in range(found.shape[1]) if i not in (0, 5)]
    assert torch.equal(found[:, others], source.values[:, others])


def test_resampled_rows_are_rows_of_the_source_and_the_same_in_every_pass(load: Load, prompts: PromptSet) -> None:
    loaded, site = load("llama"), Site("attn.heads", 1)
    batch = read_prompts(loaded, prompts.of("en"))
    source = activations(loaded, read_prompts(loaded, prompts.of("zh")), [site], "last")[site]
    edits = {site: resample(source, np.random.default_rng(1), "last", units=[1, 3])}
    with edited(loaded, edits, batch):
        first, second = (activations(loaded, batch, [site], "last")[site].values for _ in range(2))
    assert torch.equal(first, second)
    for row in first:
        assert any(torch.equal(row[[1, 3]], other[[1, 3]]) for other in source.values)
    plain = activations(loaded, batch, [site], "last")[site].values
    assert torch.equal(first[:, [0, 2]], plain[:, [0, 2]])
    other = resample(source, np.random.default_rng(2), "last").change(plain)
    assert not torch.equal(other, resample(source, np.random.default_rng(1), "last").change(plain))


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "bloom", "opt"])
def test_an_effect_in_a_batch_is_that_of_the_prompt_alone(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    edits = {Site("mlp.act", 0): zero("segment:question", units=[1, 2]), Site("resid.post", 1): zero("first")}
    together = effect(loaded, read_prompts(loaded, prompts.prompts), edits)
    for row, prompt in enumerate(prompts.prompts):
        alone = effect(loaded, read_prompts(loaded, [prompt]), edits)
        torch.testing.assert_close(together.logits_after[row], alone.logits_after[0], **CLOSE)


@pytest.mark.parametrize("name", ["mt5", "bart", "m2m100"])
def test_encoders_and_decoders_are_edited_by_their_own_tokens(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    batch = read_prompts(loaded, prompts.of("sw"), decoder="copy")
    for site in ("enc.mlp.out@1", "dec.mlp.out@1", "dec.cross.heads@1", "enc.attn.heads@0"):
        found = effect(loaded, batch, {Site.parse(site): zero()})
        assert (found.logits_before - found.logits_after).abs().max() > 1e-4
    # Without attention to the encoder nothing of it is left.
    everything = {Site("cross.heads", i, "dec"): zero() for i in range(3)}
    with torch.no_grad(), edited(loaded, everything, batch):
        first = next_logits(loaded, batch)
        with edited(loaded, {Site("resid.post", 2, "enc"): zero()}, batch):
            assert torch.equal(first, next_logits(loaded, batch))


def test_scores_are_those_that_a_capture_keeps(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    plan = make_plan(loaded, prompts, sites=["embed"], positions=["last"], block_items=8)
    blocks = list(run_plan(plan, loaded, prompts, [(language, 0) for language in prompts.languages]))
    found = effect(loaded, read_prompts(loaded, prompts.prompts), {})
    # Passes of another shape in float32.
    np.testing.assert_allclose(found.scores_before, np.concatenate([b.answers.scores for b in blocks]), atol=2e-5)
    np.testing.assert_array_equal(found.scores_before, found.scores_after)
    table = found.table()
    assert list(table.columns) == ["item", "language", "option", "gold", "before", "after"]
    assert len(table) == 2 * len(prompts)
    assert table["gold"].sum() == len(prompts)


def test_an_option_that_is_not_there_has_no_score(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    batch = read_prompts(loaded, [prompts.prompts[0], Prompt("open", "en", "Which?")])
    with torch.no_grad():
        scores = option_scores(loaded, batch, next_logits(loaded, batch))
    assert scores.isnan().tolist() == [[False, False], [True, True]]


def test_no_hook_is_left_behind_when_an_edit_fails(load: Load, prompts: PromptSet) -> None:
    loaded = load("gpt2")
    hooks, batch = count_hooks(loaded.model), read_prompts(loaded, prompts.prompts)
    wrong = {Site("mlp.out", 0): zero(), Site("mlp.out", 1): Edit(lambda rows: rows[:-1], Position("all"))}
    with pytest.raises(BabelScopeError, match="turned rows of shape"):
        effect(loaded, batch, wrong)
    assert count_hooks(loaded.model) == hooks


@pytest.mark.parametrize(
    ("site", "make", "problem"),
    [
        ("attn.heads@0", lambda s: zero(units=[4]), "has no head 4"),
        ("mlp.neurons@0", lambda s: zero(units=[-1]), "negative"),
        ("mlp.neurons@0", lambda s: zero(units=[]), "none"),
        ("mlp.neurons@0", lambda s: mean(s, units=[48]), "no unit 48"),
        ("mlp.out@0", lambda s: zero("segment:nowhere"), "no segment 'nowhere'"),
        ("mlp.out@0", lambda s: steer(torch.zeros(7)), "shape"),
        ("cross.out@0", lambda s: zero(), "cross.out"),
        ("enc.mlp.out@0", lambda s: zero(), "no such stack"),
    ],
)
def test_what_cannot_be_edited_is_refused_by_name(
    site: str, make: Callable[..., Edit], problem: str, load: Load, prompts: PromptSet
) -> None:
    loaded = load("llama")
    batch, known = read_prompts(loaded, prompts.of("en")), Site("mlp.neurons", 0)
    with pytest.raises(BabelScopeError, match=problem) as caught:
        effect(loaded, batch, {Site.parse(site): make(activations(loaded, batch, [known])[known])})
    assert caught.value.hint


def test_a_patch_between_prompts_of_unequal_length_is_refused(load: Load, prompts: PromptSet) -> None:
    loaded, site = load("llama"), Site("resid.post", 1)
    source = activations(loaded, read_prompts(loaded, prompts.of("sw")), [site], "segment:question")[site]
    batch = read_prompts(loaded, prompts.of("en"))
    with pytest.raises(BabelScopeError, match="the source has"):
        effect(loaded, batch, {site: patch(source)})
    fewer = activations(loaded, read_prompts(loaded, prompts.of("sw")[:3]), [site], "last")[site]
    with pytest.raises(BabelScopeError, match="the source has"):
        effect(loaded, batch, {site: patch(fewer)})


def test_an_encoder_has_no_answer_to_change(load: Load, prompts: PromptSet) -> None:
    with pytest.raises(BabelScopeError, match="predicts no next token"):
        effect(load("bert"), read_prompts(load("bert"), prompts.of("en")), {})
    with pytest.raises(BabelScopeError, match="no prompt"):
        read_prompts(load("llama"), [])
