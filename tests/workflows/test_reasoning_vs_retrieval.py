from dataclasses import replace

import numpy as np
import pytest

import babelscope as bs
from babelscope import workflows
from babelscope.analyses.statistics import NOT_TESTABLE
from babelscope.errors import BabelScopeError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    prompts = [bs.generate(n, languages=["en", "de"]).select(limit=24) for n in ("kfrd-arithmetic", "knowledge")]
    path = tmp_path_factory.mktemp("dissociation") / "run.acts"
    return bs.capture(path, model="organism", prompts=prompts, sites=["resid.post@-1"], self_test=False)


def test_kinds_come_apart_by_chosen_neurons_and_not_by_random_ones(store):
    found = workflows.analyze(store, recipes="reasoning-vs-retrieval", settings={"shares": "1"})
    table = found["reasoning_vs_retrieval"].table.set_index("claim")
    chosen = table.loc["interaction of neurons and items, 27 neurons"]
    random = table.loc["the same with matched random neurons, 27 neurons"]
    assert chosen["low"] > 0
    assert chosen["estimate"] > 5 * abs(random["estimate"])
    assert chosen["verdict"] == "supported"
    assert table["verdict"].ne("").all()
    curves = found["reasoning_vs_retrieval_curves"].table
    own = curves[(curves["neurons"] == curves["items"])]["drop"].mean()
    other = curves[curves["neurons"].isin(["retrieval", "reasoning"]) & (curves["neurons"] != curves["items"])]["drop"]
    assert own > other.mean()
    neurons = found["reasoning_vs_retrieval_neurons"].table
    assert len(neurons) == 2 * 2 * 27
    assert (np.sign(neurons["t"]) == np.where(neurons["kind"] == "retrieval", 1, -1)).all()


def test_what_cannot_be_compared_is_named(store):
    def run(**options):
        return workflows.analyze(store, recipes="reasoning-vs-retrieval", **options)

    with pytest.raises(BabelScopeError, match="no group 'knowledge-free'"):
        run(by=None)
    with pytest.raises(BabelScopeError, match="no language 'sw'"):
        run(settings={"source": "sw"})
    with pytest.raises(BabelScopeError, match="no percentages of neurons"):
        run(settings={"shares": "0"})


def test_groups_of_different_templates_support_nothing(tmp_path):
    first, second = (bs.generate(n, languages=["en", "de"]).select(limit=24) for n in ("kfrd-arithmetic", "knowledge"))
    renamed = tuple(replace(p, covariates={**p.covariates, "template": "other"}) for p in second.prompts)
    prompts = [first, replace(second, prompts=renamed)]
    path = tmp_path / "run.acts"
    store = bs.capture(path, model="organism", prompts=prompts, sites=["resid.post@-1"], self_test=False)
    found = workflows.analyze(store, recipes="reasoning-vs-retrieval", settings={"shares": "1"})
    assert set(found["reasoning_vs_retrieval"].table["verdict"]) == {NOT_TESTABLE}
