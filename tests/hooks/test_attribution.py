import copy

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradientXActivation

import babelscope as bs
from babelscope import workflows
from babelscope.hooks import as_loaded, load_model
from babelscope.hooks import interventions as iv
from babelscope.schema import Site

pytestmark = pytest.mark.filterwarnings("ignore:.*hook.*:UserWarning")


@pytest.fixture(scope="module")
def loaded():
    return load_model(workflows.model_path("organism"), device="cpu")


@pytest.fixture(scope="module")
def prompts():
    return bs.generate("knowledge", languages=["en"]).select(limit=4).prompts


@pytest.fixture(scope="module")
def sites(loaded):
    return [Site("mlp.neurons", layer) for layer in range(loaded.ref.n_layers)]


@pytest.fixture(scope="module")
def found(loaded, prompts, sites):
    return iv.neuron_gradients(loaded, prompts, sites)


def margin_of(loaded, prompt):
    """The answer margin as a function of token ids, for captum."""
    batch = iv.read_prompts(loaded, [prompt])
    score = iv.answer_margin(loaded, batch)
    return batch.tokens.ids, lambda ids: score(loaded.model(input_ids=ids, use_cache=False).logits[:, -1])


def test_the_margin_is_the_gold_logit_less_the_mean_of_the_others(loaded, prompts, found):
    for prompt, margin in zip(prompts, found.margin, strict=True):
        ids, _ = margin_of(loaded, prompt)
        logits = loaded.model(input_ids=ids).logits[0, -1].double()
        options = []
        for letter in "ABCD":
            spellings = {loaded.tokenizer.encode(s + letter, add_special_tokens=False)[-1] for s in ("", " ")}
            options.append(max(float(logits[t]) for t in spellings))
        others = [v for k, v in enumerate(options) if k != prompt.gold]
        assert margin == pytest.approx(options[prompt.gold] - np.mean(others), abs=1e-4)


def test_gradient_times_activation_is_that_of_captum(loaded, prompts, sites, found):
    for row, prompt in enumerate(prompts[:2]):
        ids, forward = margin_of(loaded, prompt)
        for layer in (0, 3, 5):
            down = loaded.anatomy.output_stack.layers[layer].down_projection
            oracle = LayerGradientXActivation(forward, down)
            loaded.model.get_input_embeddings().weight.requires_grad_(True)
            theirs = oracle.attribute(ids, attribute_to_layer_input=True)
            loaded.model.requires_grad_(False)
            theirs = theirs[0] if isinstance(theirs, tuple) else theirs
            np.testing.assert_allclose(found.attribution[row, layer], theirs[0, -1].detach().numpy(), atol=2e-5)


def test_integrated_gradients_are_those_of_captum_where_all_tokens_but_the_last_stay(loaded, prompts, sites, found):
    prompt, layer, steps = prompts[0], 4, 8
    ids, forward = margin_of(loaded, prompt)
    down = loaded.anatomy.output_stack.layers[layer].down_projection
    kept = {}
    handle = down.register_forward_pre_hook(lambda _, args: kept.update(x=args[0].detach()))
    forward(ids)
    handle.remove()
    baseline = kept["x"].clone()
    baseline[0, -1] = 0.0  # captum moves whole layers: the other tokens are their own baseline

    def many(neurons):
        handle = down.register_forward_pre_hook(lambda _, args: (neurons, *args[1:]))
        try:
            logits = loaded.model(input_ids=ids.expand(len(neurons), -1), use_cache=False).logits[:, -1]
        finally:
            handle.remove()
        return iv.answer_margin(loaded, iv.read_prompts(loaded, [prompt] * len(neurons)))(logits)

    theirs = IntegratedGradients(many).attribute(kept["x"], baselines=baseline, n_steps=steps, method="riemann_middle")
    ours = iv.integrated_gradients(
        loaded, [prompt], [sites[layer]], found.activation[:1, [layer]], np.zeros((1, found.activation.shape[2])), steps
    )
    np.testing.assert_allclose(ours.attribution[0, 0], theirs[0, -1].detach().numpy(), atol=2e-5)


def test_integrated_gradients_become_complete_with_steps(loaded, prompts, sites, found):
    mean = found.activation.mean(axis=0)
    errors = [
        np.abs(
            iv.integrated_gradients(loaded, prompts, sites[3:4], found.activation[:, 3:4], mean[3:4], s).missing
        ).max()
        for s in (1, 4, 32)
    ]
    assert errors[2] < errors[0]
    assert errors[2] < 2e-3


def test_a_models_own_activations_change_nothing_and_zeros_are_zero_ablation(loaded, prompts, sites, found):
    whole = iv.answered(loaded, prompts, {})
    units = range(found.activation.shape[2])
    own = iv.answered(loaded, prompts, {s: (units, found.activation[:, k]) for k, s in enumerate(sites)})
    np.testing.assert_allclose(own.margin, whole.margin, atol=1e-4)
    batch = iv.read_prompts(loaded, prompts)
    effect = iv.effect(loaded, batch, {sites[2]: iv.zero("last")})
    zeroed = iv.answered(loaded, prompts, {sites[2]: (units, np.zeros(len(units)))})
    scores = effect.scores_after
    gold = np.array([p.gold for p in prompts])
    expected = [s[g] - np.delete(s, g).mean() for s, g in zip(scores, gold, strict=True)]
    np.testing.assert_allclose(zeroed.margin, expected, atol=1e-5)
    assert (zeroed.correct == (scores.argmax(1) == gold)).all()


def test_attribution_by_a_patch_is_first_order_in_the_patch():
    rng = np.random.default_rng(0)
    a, g, b = rng.normal(size=(3, 2, 1, 4))
    np.testing.assert_allclose(iv.patching_attribution(a, g, b), (a - b) * g)


def test_direct_contributions_add_up_to_what_the_mlp_writes_along_the_final_gradient(loaded, prompts, sites, found):
    direct = iv.direct_contributions(loaded, prompts, sites, found.activation)
    batch = iv.read_prompts(loaded, prompts)
    last = Site("resid.post", loaded.ref.n_layers - 1)
    slope = iv.gradients(loaded, batch, [last], iv.answer_margin(loaded, batch))[last].gradient
    rows, at = torch.arange(len(prompts)), batch.tokens.mask.sum(1) - 1
    for layer in range(loaded.ref.n_layers):
        out = Site("mlp.out", layer)
        written = iv.activations(loaded, batch, [out], "last")[out].values
        expected = (written * slope[rows, at]).sum(1)
        bias = getattr(loaded.anatomy.output_stack.layers[layer].down_projection, "bias", None)
        assert bias is None
        np.testing.assert_allclose(direct[:, layer].sum(1), expected.numpy(), atol=1e-4)


def test_a_planted_neuron_is_found_and_its_ablation_takes_the_answer(loaded, prompts, sites, found):
    """A copy of the model in which one neuron of the last layer writes the gold letter of all prompts of one gold."""
    chosen = [p for p in prompts if p.gold == prompts[0].gold]
    model = copy.deepcopy(loaded.model)
    planted = as_loaded(model, loaded.tokenizer)
    letter = int(iv.next_logits(loaded, iv.read_prompts(loaded, chosen))[0].argmax())
    down = planted.anatomy.output_stack.layers[-1].down_projection
    neuron = int(np.abs(found.activation[:, -1]).mean(axis=0).argmax())
    sign = np.sign(found.activation[0, -1, neuron])
    with torch.no_grad():
        down.weight[:, neuron] += 8 * float(sign) * model.get_output_embeddings().weight[letter]
    gradients = iv.neuron_gradients(planted, chosen, sites)
    direct = iv.direct_contributions(planted, chosen, sites, gradients.activation)
    mean = np.zeros_like(gradients.activation[0])
    path = iv.integrated_gradients(planted, chosen, sites[-1:], gradients.activation[:, -1:], mean[-1:], 16)
    for scores in (gradients.attribution[:, -1], direct[:, -1], path.attribution[:, 0]):
        assert int(scores.mean(axis=0).argmax()) == neuron
    whole = iv.answered(planted, chosen, {})
    without = iv.answered(planted, chosen, {sites[-1]: ([neuron], np.zeros(1))})
    other = iv.answered(planted, chosen, {sites[-1]: ([(neuron + 1) % 448], np.zeros(1))})
    assert (whole.margin - without.margin).mean() > 5 * np.abs(whole.margin - other.margin).mean()
