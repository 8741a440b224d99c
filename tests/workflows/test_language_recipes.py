import numpy as np
import pytest

import babelscope as bs
from babelscope import workflows
from babelscope.errors import BabelScopeError
from babelscope.hooks import interventions as iv
from babelscope.hooks import load_model
from babelscope.schema import Site


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    prompts = bs.generate("knowledge", languages=["en", "zh"]).select(limit=16)
    path = tmp_path_factory.mktemp("language") / "run.acts"
    return bs.capture(path, model="organism", prompts=prompts, sites=["mlp.act"], self_test=False)


def test_head_importance_is_minus_the_first_order_effect_of_masking_a_head():
    loaded = load_model(workflows.model_path("organism"), device="cpu")
    prompts = bs.generate("knowledge", languages=["en"]).select(limit=2).prompts
    site = Site("attn.heads", 3)
    found = iv.head_importance(loaded, prompts, [site])[:, 0]
    batch = iv.read_prompts(loaded, prompts)
    score = iv.answer_margin(loaded, batch)
    head, small = 2, 1e-2
    margins = []
    for factor in (1 - small, 1 + small):
        edit = iv.Edit(lambda rows, f=factor: f * rows, iv.zero().position, (head,))
        with iv.edited(loaded, {site: edit}, batch):
            margins.append(score(iv.next_logits(loaded, batch)).double().detach().numpy())
    np.testing.assert_allclose(found[:, head], (margins[1] - margins[0]) / (2 * small), atol=5e-3)


def test_heads_and_selectivity_run_on_a_store_and_every_row_has_its_null_and_n(store):
    settings = {"top": "10", "draws": "2"}
    found = workflows.analyze(store, recipes=["language-heads", "ablation-selectivity"], settings=settings)
    for name in ("language_heads", "ablation_selectivity"):
        table = found[name].table
        assert (table["verdict"] != "").all()
        assert table["null"].notna().all()
        assert (table["n"] > 0).all()
    matrix = found["ablation_selectivity_matrix"].table
    assert len(matrix) == 4
    assert matrix[["damage", "low", "high"]].notna().all().all()
    assert len(found["language_heads_all"].table) == 2 * 6 * 5


def test_sets_that_leave_no_controls_are_refused(store):
    with pytest.raises(BabelScopeError, match="too few others"):
        workflows.analyze(store, recipes="ablation-selectivity", settings={"top": "1300"})


def test_missing_layers_are_named(store):
    with pytest.raises(BabelScopeError, match=r"mlp\.act of 1 of 6 layers"):
        workflows.analyze(store, recipes="ablation-selectivity", sites=["mlp.act@2"])
