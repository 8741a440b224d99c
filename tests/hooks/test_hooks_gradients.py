"""Gradients against finite differences, against autograd on the inputs, and of each prompt alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_zoo import NEURONS

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, load_model
from babelscope.hooks.interventions import (
    Edit,
    PromptBatch,
    edited,
    effect,
    gold_score,
    gradients,
    next_logits,
    read_prompts,
    steer,
    zero,
)
from babelscope.hooks.selftest import count_hooks
from babelscope.schema import Position, Prompt, PromptSet, Site

Load = Callable[[str], LoadedModel]
SITES = ("embed", "resid.pre@1", "attn.out@1", "attn.heads@1", "mlp.act@1", "mlp.neurons@1", "mlp.out@1",
         "resid.post@1")  # fmt: skip


@pytest.fixture(scope="module")
def double(folder_of: Callable[[str], Path]) -> Callable[[str], LoadedModel]:
    """A model of its own in float64, so that differences are not lost in roundings."""
    made: dict[str, LoadedModel] = {}

    def get(name: str) -> LoadedModel:
        if name not in made:
            loaded = load_model(folder_of(name), device="cpu")
            if hasattr(loaded.model, "set_experts_implementation"):
                loaded.model.set_experts_implementation("eager")  # the kernels for all experts at once know no float64
            made[name] = replace(loaded, model=loaded.model.double())
        return made[name]

    return get


def slope_along(
    loaded: LoadedModel, batch: PromptBatch, site: Site, direction: torch.Tensor, eps: float
) -> torch.Tensor:
    """How each prompt's score rises when the last token of the site moves: central differences, extrapolated once."""
    score, found = gold_score(loaded, batch), {}
    for step in (eps, eps / 2):
        ends = []
        for sign in (1, -1):
            with torch.no_grad(), edited(loaded, {site: steer(direction, sign * step, "last")}, batch):
                ends.append(score(next_logits(loaded, batch)))
        found[step] = (ends[0] - ends[1]) / (2 * step)
    return (4 * found[eps / 2] - found[eps]) / 3


# The first three compute in float64 throughout: the error is a fifth derivative times eps^4, and 1e-16 / eps. The
# others fall back to float32 in their norms or in softmax, which leaves 1e-7 / eps of every score beside it.
@pytest.mark.parametrize(
    ("name", "eps", "tolerance"),
    [(n, 1e-4, 1e-6) for n in ("gpt2", "gpt-neox", "opt")]
    + [(n, 3e-3, 2e-3) for n in ("bloom", "llama", "mistral", "gemma2", "qwen3", "granite", "phi3")],
)
@pytest.mark.parametrize("site", SITES)
def test_a_gradient_is_the_slope_of_the_score(
    name: str, eps: float, tolerance: float, site: str, double: Load, prompts: PromptSet
) -> None:
    loaded, where = double(name), Site.parse(site)
    # One prompt: in float64 the masks of eager attention overflow to -inf, and padding turns into NaN.
    hooks, batch = count_hooks(loaded.model), read_prompts(loaded, prompts.of("sw")[3:4])
    found = gradients(loaded, batch, [where], gold_score(loaded, batch))[where]
    assert count_hooks(loaded.model) == hooks
    last = batch.tokens.mask.sum(1) - 1
    slope = found.gradient[torch.arange(len(last)), last]
    direction = torch.randn(slope.shape[1:], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = slope_along(loaded, batch, where, direction, eps)
    along = (slope * direction).flatten(1).sum(1)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(along, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


INSIDE = [f"attn.{part}@1" for part in ("q", "k", "v", "scores", "pattern")]


# The softmax of Llama and GPT-2 is in float32: 1e-7 / eps of every score beside the fourth power of eps.
@pytest.mark.parametrize(
    ("name", "site"),
    [(name, site) for name in ("llama", "gpt2") for site in INSIDE]
    + [("bloom", "attn.scores@1"), ("bloom", "attn.pattern@1"), ("mixtral", "moe.weight@1"),
       ("mixtral", "moe.neurons@1"), ("gpt-oss", "moe.neurons@1"), ("gpt-oss", "attn.pattern@1")]
    + [("bart", f"dec.cross.{part}@1") for part in ("q", "k", "v", "scores", "pattern")],
)  # fmt: skip
def test_a_gradient_inside_attention_or_experts_is_the_slope_of_the_score(
    name: str, site: str, double: Load, prompts: PromptSet
) -> None:
    loaded, where = double(name), Site.parse(site)
    hooks, batch = count_hooks(loaded.model), read_prompts(loaded, prompts.of("sw")[3:4], decoder="copy")
    found = gradients(loaded, batch, [where], gold_score(loaded, batch))[where]
    assert count_hooks(loaded.model) == hooks
    slope = found.gradient[:, -1]
    direction = torch.randn(slope.shape[1:], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = slope_along(loaded, batch, where, direction, 3e-3)
    assert expected.abs().max() > 1e-5
    along = (slope * direction).flatten(1).sum(1)
    torch.testing.assert_close(along, expected, rtol=0, atol=5e-3 * float(expected.abs().max()) + 1e-7 / 3e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mt5"])
def test_one_backward_gives_each_prompt_its_own_gradient(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    stack = "dec." if loaded.ref.n_encoder_layers else ""
    sites = [Site.parse(stack + s) for s in ("mlp.neurons@0", "attn.heads@2", "resid.post@1")]
    sites += [Site.parse("enc.resid.post@1")] if stack else []
    batch = read_prompts(loaded, prompts.prompts, decoder="copy")
    together = gradients(loaded, batch, sites, gold_score(loaded, batch))
    for row, prompt in enumerate(prompts.prompts):
        one = read_prompts(loaded, [prompt], decoder="copy")
        alone = gradients(loaded, one, sites, gold_score(loaded, one))
        for site in sites:
            n = int(together[site].mask[row].sum())
            largest = float(alone[site].gradient.abs().max())
            # float32 passes of another shape, forward and backward.
            torch.testing.assert_close(
                together[site].gradient[row, :n], alone[site].gradient[0], rtol=0, atol=1e-4 * largest
            )
            assert not together[site].gradient[row, n:].any()


def test_the_gradient_of_the_embedding_is_that_of_the_inputs(load: Load, prompts: PromptSet) -> None:
    loaded, site = load("llama"), Site("embed")
    prompt = prompts.of("sw")[3]
    batch = read_prompts(loaded, [prompt])
    found = gradients(loaded, batch, [site], gold_score(loaded, batch))[site]
    inputs = loaded.model.get_input_embeddings()(batch.tokens.ids).detach().requires_grad_()
    logp = loaded.model(inputs_embeds=inputs).logits[0, -1].log_softmax(-1)
    letter = prompt.letters[prompt.gold]
    ids = [loaded.tokenizer(v)["input_ids"] for v in (letter, " " + letter)]
    (expected,) = torch.autograd.grad(max(logp[i[0]] for i in ids if len(i) == 1), [inputs])
    assert torch.equal(found.activation, inputs.detach())
    torch.testing.assert_close(found.gradient, expected, rtol=1e-4, atol=1e-6)  # float32; only the last row unembedded


@pytest.mark.parametrize("name", ["gpt2", "bloom"])
def test_attribution_predicts_what_zeroing_a_little_does(name: str, double: Load, prompts: PromptSet) -> None:
    loaded, site, eps = double(name), Site("mlp.neurons", 2), 1e-5
    batch = read_prompts(loaded, prompts.of("zh")[2:3])
    score = gold_score(loaded, batch)
    found = gradients(loaded, batch, [site], score)[site]
    shrink = Edit(lambda rows: rows * (1 - eps), Position("all"), units=(4, 7))
    with torch.no_grad():
        before = score(next_logits(loaded, batch))
        with edited(loaded, {site: shrink}, batch):
            after = score(next_logits(loaded, batch))
    expected = -eps * (found.attribution * found.mask[..., None])[..., [4, 7]].sum((1, 2))
    # Second order in eps: 1e-10 beside effects of 1e-6.
    torch.testing.assert_close(after - before, expected, rtol=1e-3, atol=1e-10)


def test_edits_in_force_belong_to_the_function(double: Load, prompts: PromptSet) -> None:
    loaded, site = double("gpt2"), Site("mlp.neurons", 1)
    batch = read_prompts(loaded, prompts.of("en"))
    with edited(loaded, {Site("mlp.out", 2): zero(), Site("attn.out", 2): zero()}, batch):
        found = gradients(loaded, batch, [site, Site("mlp.neurons", 2)], gold_score(loaded, batch))
    plain = gradients(loaded, batch, [site], gold_score(loaded, batch))
    assert not torch.allclose(found[site].gradient, plain[site].gradient)
    # Nothing that the last MLP computes reaches the score any more.
    assert not found[Site("mlp.neurons", 2)].gradient.any()
    assert found[Site("mlp.neurons", 2)].gradient.shape[-1] == NEURONS


def test_nothing_of_the_model_collects_gradients(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    batch = read_prompts(loaded, prompts.of("en"))
    gradients(loaded, batch, [Site("resid.post", 0)], gold_score(loaded, batch))
    assert all(p.grad is None and not p.requires_grad for p in loaded.model.parameters())
    found = effect(loaded, batch, {Site("mlp.out", 0): zero()})
    assert not found.logits_after.requires_grad


@pytest.mark.parametrize(
    ("score", "problem"), [(lambda x: x[:, 0] * torch.nan, "finite"), (lambda x: x, "for each of 5 prompts")]
)
def test_a_score_that_is_none_is_refused(
    score: Callable[[torch.Tensor], torch.Tensor], problem: str, load: Load, prompts: PromptSet
) -> None:
    loaded = load("llama")
    with pytest.raises(BabelScopeError) as caught:
        gradients(loaded, read_prompts(loaded, prompts.of("en")), [Site("embed")], score)
    assert problem in str(caught.value)


def test_a_prompt_without_gold_is_named(load: Load) -> None:
    loaded = load("llama")
    open_question = Prompt("open", "en", "Which?")
    alike = Prompt("alike", "en", "Which?", letters=("qqqq1", "qqqq2"), gold=0)
    for prompt, reason in ((open_question, "no gold option"), (alike, "do not tell them apart")):
        with pytest.raises(BabelScopeError, match=f"'{prompt.item}' in 'en': .*{reason}"):
            gold_score(loaded, read_prompts(loaded, [prompt]))
