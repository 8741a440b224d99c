import pytest

import babelscope as bs
from babelscope import workflows
from babelscope.errors import BabelScopeError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    prompts = bs.generate("knowledge", languages=["en", "de"]).select(limit=12)
    path = tmp_path_factory.mktemp("attribution") / "run.acts"
    return bs.capture(path, model="organism", prompts=prompts, sites=["mlp.neurons"], self_test=False)


@pytest.mark.parametrize("method", ["gradient_x_activation", "attribution_patching", "direct_logit", "probeless"])
def test_languages_share_more_than_shuffled_neurons(store, method):
    found = workflows.analyze(store, recipes="neuron-attribution", settings={"method": method, "top": "30"})
    table = found["neuron_attribution"].table.set_index("claim")
    row = table.loc["rank correlation of importance"]
    assert row["estimate"] > row["null"]
    assert row["n"] == 12
    if method != "probeless":
        assert row["verdict"] == "supported"
        neurons = found["neuron_attribution_neurons"].table
        assert len(neurons) == 2 * 30
        assert neurons[["n", "mean", "low", "high", "q"]].notna().all().all()


def test_integrated_gradients_say_how_complete_they_are(store):
    settings = {"method": "integrated_gradients", "steps": "4"}
    found = workflows.analyze(store, recipes="neuron-attribution", settings=settings, languages=["en", "de"])
    text = found["neuron_attribution"].provenance["completeness"]["all"]
    assert float(text.rpartition(" ")[2]) < 0.2


def test_an_unknown_method_is_refused_with_the_default(store):
    with pytest.raises(BabelScopeError, match=r"method='gradients'.*gradient_x_activation"):
        workflows.analyze(store, recipes="neuron-attribution", settings={"method": "gradients"})
