"""Attribution in tiny random models of two families, of which one keeps its weights the other way round."""

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation
from model_zoo import saved

from babelscope.hooks import interventions as iv
from babelscope.hooks import load_model
from babelscope.schema import Prompt, Site

pytestmark = pytest.mark.filterwarnings("ignore:.*hook.*:UserWarning")
PROMPTS = tuple(
    Prompt(f"q{k}", "en", f"Which of these is larger? {text}", letters=("A", "B", "C", "D"), options=("",) * 4, gold=k)
    for k, text in enumerate(("Answer with A, B, C or D.", "A or B?", "Answer with A or B."))
)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def loaded(request, tmp_path_factory):
    return load_model(saved(request.param, tmp_path_factory.mktemp(request.param)), device="cpu")


@pytest.fixture(scope="module")
def sites(loaded):
    return [Site("mlp.neurons", layer) for layer in range(loaded.ref.n_layers)]


@pytest.fixture(scope="module")
def found(loaded, sites):
    return iv.neuron_gradients(loaded, PROMPTS, sites)


def test_gradient_times_activation_is_that_of_captum(loaded, sites, found):
    for row, prompt in enumerate(PROMPTS):
        batch = iv.read_prompts(loaded, [prompt])
        score = iv.answer_margin(loaded, batch)
        for layer in range(len(sites)):
            down = loaded.anatomy.output_stack.layers[layer].down_projection
            oracle = LayerGradientXActivation(lambda ids, s=score: s(loaded.model(input_ids=ids).logits[:, -1]), down)
            loaded.model.get_input_embeddings().weight.requires_grad_(True)
            theirs = oracle.attribute(batch.tokens.ids, attribute_to_layer_input=True)
            loaded.model.requires_grad_(False)
            theirs = theirs[0] if isinstance(theirs, tuple) else theirs
            theirs = theirs.reshape(-1, theirs.shape[-1])[-1].detach().numpy()
            np.testing.assert_allclose(found.attribution[row, layer], theirs, atol=1e-5)


def test_direct_contributions_are_what_the_weights_say(loaded, sites, found):
    direct = iv.direct_contributions(loaded, PROMPTS, sites, found.activation)
    last = Site("resid.post", loaded.ref.n_layers - 1)
    for row, prompt in enumerate(PROMPTS):
        batch = iv.read_prompts(loaded, [prompt])
        slope = iv.gradients(loaded, batch, [last], iv.answer_margin(loaded, batch))[last].gradient[0, -1].numpy()
        for layer in range(len(sites)):
            weight = loaded.anatomy.output_stack.layers[layer].down_projection.weight.detach().numpy()
            if weight.shape[0] == len(slope):
                weight = weight.T  # a linear layer keeps (out, in), a Conv1D (in, out)
            expected = [a * float(w @ slope) for a, w in zip(found.activation[row, layer], weight, strict=True)]
            np.testing.assert_allclose(direct[row, layer], expected, atol=1e-5)


def test_integrated_gradients_and_what_they_say_is_missing_make_up_the_ablation(loaded, sites, found):
    baseline = np.zeros_like(found.activation[0])
    path = iv.integrated_gradients(loaded, PROMPTS, sites, found.activation, baseline, 32)
    for layer, site in enumerate(sites):
        without = iv.answered(loaded, PROMPTS, {site: (range(baseline.shape[1]), np.zeros(baseline.shape[1]))})
        together = path.attribution[:, layer].sum(1) + path.missing[:, layer]
        np.testing.assert_allclose(together, found.margin - without.margin, atol=1e-4)
    # Where the better spelling of a label changes on the way, the slope jumps, and the error falls as 1 / steps.
    assert np.abs(path.missing).max() < 0.05


def test_own_values_of_the_whole_shape_change_nothing(loaded, sites, found):
    whole = iv.answered(loaded, PROMPTS, {})
    units = range(found.activation.shape[2])
    own = {s: (units, np.ascontiguousarray(found.activation[:, k])) for k, s in enumerate(sites)}
    np.testing.assert_allclose(iv.answered(loaded, PROMPTS, own).margin, whole.margin, atol=1e-4)
    np.testing.assert_allclose(whole.margin, found.margin, atol=1e-4)


def test_one_neuron_set_to_nothing_is_what_a_hook_on_the_down_projection_does(loaded, sites, found):
    down = loaded.anatomy.output_stack.layers[-1].down_projection

    def silence(_, args):
        x = args[0].clone()
        x.reshape(-1, x.shape[-1])[-1, 3] = 0.0
        return (x, *args[1:])

    ours = iv.answered(loaded, PROMPTS, {sites[-1]: ([3], np.zeros(1))})
    for row, prompt in enumerate(PROMPTS):
        batch = iv.read_prompts(loaded, [prompt])
        handle = down.register_forward_pre_hook(silence)
        with torch.no_grad():
            margin = iv.answer_margin(loaded, batch)(loaded.model(input_ids=batch.tokens.ids).logits[:, -1])
        handle.remove()
        assert ours.margin[row] == pytest.approx(float(margin[0]), abs=1e-5)
