import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from babelscope import workflows
from babelscope.analyses import analyze
from babelscope.analyses.metrics.nao import NeuronOverlap
from babelscope.analyses.similarities.jaccard import Jaccard
from babelscope.errors import BabelScopeError
from babelscope.schema import Result
from babelscope.schema.results import COLUMNS
from tests.analyses.planted import LANGUAGES, activations, write_store
from tests.analyses.test_joint import published_overlap
from tests.analyses.test_similarities import slow_cosine, slow_overlap

FEW = {"n_boot": 100, "n_perm": 99}
DEMAND = ["knowledge", "knowledge-free"] * 12
SWEEP = {"threshold": [0.2, 0.4, 0.9]}


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    shared = np.where(np.array(DEMAND) == "knowledge", 0.0, 1.2)[None, :, None]
    return {
        "resid.post": np.stack([activations(rng, 3, 24, 12, shared=shared) for _ in range(2)]),
        "mlp.act": np.stack([0.5 * activations(rng, 3, 24, 160, shared=shared, language=0.5) for _ in range(2)]),
    }


@pytest.fixture(scope="module")
def store(values, tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("planted") / "run.acts", values, demand=DEMAND)


@pytest.fixture(scope="module")
def found(store):
    return results(store)


@pytest.fixture(scope="module")
def swept(store):
    return results(store, sweep=SWEEP)


def results(store, metrics=("cs", "nao"), **options):
    return {r.name: r for r in analyze(store, metrics, **{**FEW, **options})}


def rows(result, **where):
    """Rows of a table, most often one; `layer=None` asks for those over all layers."""
    table = result.table
    for name, value in where.items():
        table = table[table[name].isna() if value is None else table[name] == value]
    return table


def test_tables_hold_every_pair_and_layer_in_the_promised_columns(found):
    assert list(found) == ["cs", "nao", "contrast"]
    for name, variants in (("cs", 3), ("nao", 1)):
        table = found[name].table
        assert {c: str(table[c].dtype) for c in table} == COLUMNS
        corrected = rows(found[name], mode="corrected")
        assert len(corrected) == variants * (3 + 1) * (2 + 1) * 2  # (pairs + mean) x (layers + overall) x groups
        assert corrected["verdict"].ne("").all()
        assert (corrected["n"] == 12).all()
        assert np.allclose(table["gap"], table["matched"] - table["null"])
        assert ((table["gap_low"] <= table["gap"]) & (table["gap"] <= table["gap_high"])).all()
        assert (table["q"] >= table["p"] - 1e-12).all()
    assert len(rows(found["cs"], mode="paper")) == 3 * 2
    assert len(rows(found["nao"], mode="paper", variant="macro_layer")) == 3 * 2
    assert len(rows(found["nao"], mode="paper", variant="pooled")) == 2


def test_tables_survive_saving(store, found, tmp_path):
    found = found["cs"]
    found.save(tmp_path)
    again = Result.load(tmp_path / "cs.parquet")
    pd.testing.assert_frame_equal(again.table, found.table)
    assert again.provenance["store"] == store.fingerprint
    assert again.provenance["groups"] == {"knowledge-free": 12, "knowledge": 12}


def slow_gap(x, y, similarity):
    n = len(x)
    matched = [similarity(x[i], y[i]) for i in range(n)]
    null = [similarity(x[i], y[j]) for i in range(n) for j in range(n) if i != j]
    return sum(matched) / n, sum(null) / len(null)


def test_pairwise_values_equal_the_definitions(found, values):
    kept = [i for i, d in enumerate(DEMAND) if d == "knowledge"]
    by_hand = {
        ("cs", "raw", "resid.post"): slow_cosine,
        ("nao", "overlap", "mlp.act"): lambda a, b: slow_overlap(a, b, 0.4)[0],
    }
    for (metric, variant, site), similarity in by_hand.items():
        means = []
        for layer, (a, b) in itertools.product(range(2), itertools.combinations(range(3), 2)):
            x = values[site][layer]
            matched, null = slow_gap(x[a][kept], x[b][kept], similarity)
            row = rows(
                found[metric], variant=variant, layer=layer, group="knowledge",
                language_a=LANGUAGES[a], language_b=LANGUAGES[b],
            )  # fmt: skip
            np.testing.assert_allclose(row[["matched", "null"]].to_numpy()[0], [matched, null], atol=1e-7)
            assert row["gap_corrected"].item() == pytest.approx((matched - null) / (1 - null), abs=1e-6)
            means.append((matched, null))
        overall = rows(found[metric], variant=variant, layer=None, language_a="*", group="knowledge")
        np.testing.assert_allclose(overall[["matched", "null"]].to_numpy()[0], np.mean(means, axis=0), atol=1e-7)


def test_published_cosine_is_the_mean_over_ordered_pairs_layers_and_items(found, values):
    kept = [i for i, d in enumerate(DEMAND) if d == "knowledge-free"]
    everything = [
        slow_cosine(x[a, i], x[b, i])
        for x in values["resid.post"]
        for a, b in itertools.permutations(range(3), 2)
        for i in kept
    ]
    row = rows(found["cs"], mode="paper", layer=None, group="knowledge-free")
    assert row["matched"].item() == pytest.approx(np.mean(everything), abs=1e-7)


def test_published_overlap_is_joint_over_all_languages(swept, values):
    kept = [i for i, d in enumerate(DEMAND) if d == "knowledge-free"]
    for threshold in (0.2, 0.4, 0.9):
        expected = [published_overlap(values["mlp.act"][:, :, i], threshold) for i in kept]
        for variant, column in (("macro_layer", 0), ("pooled", 1)):
            row = rows(
                swept["nao"], mode="paper", variant=variant, layer=None, group="knowledge-free", threshold=threshold
            )
            assert row["matched"].item() == pytest.approx(np.mean([e[column] for e in expected]), abs=1e-9)


def test_paper_intervals_are_99_percent_and_wider(found):
    table = found["cs"]
    wide = rows(table, mode="paper", layer=None)
    narrow = rows(table, variant="raw", layer=None, language_a="*")
    assert ((wide["gap_high"] - wide["gap_low"]).to_numpy() > (narrow["gap_high"] - narrow["gap_low"]).to_numpy()).all()
    np.testing.assert_array_equal(wide["gap"], narrow["gap"])


def test_a_planted_part_is_found_where_it_was_planted_and_nowhere_else(store):
    found = results(store, n_boot=500, n_perm=499)
    for metric in ("cs", "nao"):
        overall = rows(found[metric], mode="corrected", layer=None, language_a="*").set_index(["group", "variant"])
        for variant in ("raw", "centered") if metric == "cs" else ("overlap",):
            assert overall.loc[("knowledge-free", variant), "verdict"] == "supported"
            assert overall.loc[("knowledge", variant), "verdict"] == "not distinguishable from the null"
    overall = rows(found["contrast"], layer=None, mode="corrected")
    assert (overall["group_a"] == "knowledge-free").all()
    assert (overall["estimate"] > 0).all()
    assert (overall["verdict"] == "supported").all()
    assert (overall[["n_a", "n_b"]] == 12).all(axis=None)


def test_a_sweep_equals_one_threshold_at_a_time(store, swept):
    # A curve of several thresholds has a stability, and a verdict of its own.
    columns = [c for c in COLUMNS if c not in ("stability", "verdict")]
    for threshold in SWEEP["threshold"]:
        single = results(store, ["nao"], sweep={"threshold": [threshold]})["nao"].table
        table = swept["nao"].table
        at = table[table["threshold"] == threshold]
        # Counts are exact; sums of their ratios run in another order, which shows in the last bits.
        pd.testing.assert_frame_equal(
            at[columns].reset_index(drop=True), single[columns].reset_index(drop=True), rtol=1e-12, atol=1e-13
        )


def test_a_sweep_reads_no_more_than_one_threshold(store, monkeypatch):
    read = []
    select = type(store).select
    monkeypatch.setattr(
        type(store), "select", lambda self, site, **options: read.append(site) or select(self, site, **options)
    )
    analyze(store, ["nao"], sweep={"threshold": [0.4]})
    at_one, read[:] = tuple(read), []
    analyze(store, ["nao"], sweep={"threshold": [0.1, 0.4, 0.7]})
    assert tuple(read) == at_one
    assert set(read) == {"mlp.act@0", "mlp.act@1"}


def test_rows_that_are_read_first_are_corrected_together(values, tmp_path):
    three = ["a", "b", "c"] * 8
    found = results(write_store(tmp_path / "three.acts", values, demand=three), ["cs"], mode="corrected")
    overall = rows(found["cs"], layer=None, language_a="*")
    assert len(overall) == 3 * 3  # variants x groups
    np.testing.assert_allclose(overall["q"], stats.false_discovery_control(overall["p"]))
    contrasts = found["contrast"]
    overall = rows(contrasts, layer=None)
    assert len(overall) == 3 * 3  # variants x pairs of groups
    np.testing.assert_allclose(overall["q"], stats.false_discovery_control(overall["p"]))
    layers = contrasts.table[contrasts.table["layer"].notna() & contrasts.table["variant"].eq("raw")]
    assert len(layers) == 2 * 3  # layers x pairs of groups
    np.testing.assert_allclose(layers["q"], stats.false_discovery_control(layers["p"]))


def test_default_threshold_is_the_papers(found):
    assert set(found["nao"].table["threshold"]) == {0.4}


def test_sweep_summary_says_how_far_the_conclusion_holds(swept):
    summary = swept["sweep_summary"].table
    assert set(summary["metric"]) == {"nao"}
    row = summary[
        (summary["group"] == "knowledge-free") & (summary["mode"] == "corrected") & summary["layer"].isna()
    ].iloc[0]
    curve = rows(swept["nao"], mode="corrected", group="knowledge-free", layer=None, language_a="*")
    area = np.trapezoid(curve["gap"], curve["threshold"]) / 0.7
    assert row["area_gap"] == pytest.approx(area)
    assert row["conclusion_stability"] == pytest.approx((curve["gap_low"] > 0).mean())
    assert row["n_thresholds"] == 3
    assert "knowledge-free - knowledge" in set(summary["group"])
    assert summary["conclusion_stability"].between(0, 1).all()
    assert summary["kendall_tau"].dropna().between(-1, 1).all()


def test_quantile_and_top_grids_are_variants_of_their_own(store):
    table = results(store, ["nao"], sweep={"top": [0.1, 0.3], "quantile": [0.8]}, mode="corrected")["nao"].table
    assert set(zip(table["variant"], table["threshold"], strict=True)) == {
        ("overlap_top", 0.1), ("overlap_top", 0.3), ("overlap_quantile", 0.8),
    }  # fmt: skip


def test_order_of_items_in_the_store_changes_no_number(values, swept, tmp_path):
    order = np.random.default_rng(5).permutation(24)
    names = np.array([f"q{i:03d}" for i in range(24)])
    shuffled = write_store(
        tmp_path / "shuffled.acts", {s: v[:, :, order] for s, v in values.items()},
        demand=[DEMAND[i] for i in order], items=names[order].tolist(),
    )  # fmt: skip
    for name, again in results(shuffled, sweep=SWEEP).items():
        pd.testing.assert_frame_equal(swept[name].table, again.table, check_exact=True)


def test_number_of_workers_changes_no_number(store, swept):
    for name, again in results(store, jobs=2, sweep=SWEEP).items():
        pd.testing.assert_frame_equal(swept[name].table, again.table, check_exact=True)


def test_leaving_out_a_language_keeps_the_other_pairs(store, found):
    columns = ["matched", "null", "gap_low", "gap_high", "p", "auc"]
    both, fewer = found["cs"], results(store, ["cs"], languages=["en", "sw"])["cs"]
    pair = {"language_a": "en", "language_b": "sw"}
    np.testing.assert_allclose(rows(both, **pair)[columns], rows(fewer, **pair)[columns], atol=1e-12)


def test_seed_decides_the_resamples(store, found):
    first, same, other = found["cs"].table, *(results(store, ["cs"], seed=s)["cs"].table for s in (0, 2))
    pd.testing.assert_frame_equal(first, same, check_exact=True)
    assert not np.array_equal(first["gap_low"], other["gap_low"])
    np.testing.assert_array_equal(first["gap"], other["gap"])


def test_dead_neurons_are_undefined_and_counted(tmp_path):
    x = activations(np.random.default_rng(1), 3, 8, 10, shared=1.0)[None].copy()
    x[0, :, 2:5] = 0.0  # three items activate nothing in any language
    x[0, 0, 6] = 0.0  # one activates nothing in English
    store = write_store(tmp_path / "dead.acts", {"mlp.act": x})
    table = results(store, ["nao"], sweep={"threshold": [0.4, 99.0]}, by=None)["nao"]
    pair = rows(table, language_a="en", language_b="de", layer=0, threshold=0.4)
    assert pair["n"].item() == 5
    assert pair["n_undefined"].item() == 3
    assert pair["matched"].notna().item()
    silent = rows(table, threshold=99.0, mode="corrected")
    assert silent["n"].eq(0).all()
    assert silent[["matched", "null", "gap", "gap_low", "p", "q", "auc"]].isna().all(axis=None)
    assert silent["verdict"].eq("not testable with this data").all()
    published = rows(table, threshold=99.0, variant="macro_layer", layer=None)
    assert published["matched"].item() == 0.0  # as the authors' script has it
    assert math.isnan(rows(table, threshold=99.0, variant="pooled")["matched"].item())


def test_items_that_a_language_lacks_are_left_out_and_counted(values, tmp_path):
    store = write_store(tmp_path / "holes.acts", values, missing={"de": [0, 3]})
    found = results(store, ["cs"])["cs"]
    assert set(found.table["n"]) == {22}
    assert set(found.table["group"]) == {"all"}
    assert found.provenance["items_left_out"] == 2


def test_items_without_a_group_are_left_out_and_counted(values, tmp_path):
    named = [d if i not in (1, 6, 9) else None for i, d in enumerate(DEMAND)]
    store = write_store(tmp_path / "groupless.acts", values, demand=named, missing={"de": [0]})
    about = results(store, ["cs"])["cs"].provenance
    assert about["groups"] == {"knowledge-free": 10, "knowledge": 10}
    assert about["by"] == "demand"
    assert about["items_without_group"] == 3
    assert about["items_left_out"] == 1
    told = []
    analysis = workflows.analyze(store, "cs", mode="corrected", note=told.append)
    assert told == [
        "1 item left out: some language lacks them", "3 items left out: no value of demand, which forms the groups"
    ]  # fmt: skip
    text = analysis.report(tmp_path / "report.html").read_text("utf-8")
    assert all(f"<dd>{line}</dd>" in text for line in told)


@pytest.mark.parametrize(("site", "fits", "other"), [("resid.post", "cs", "nao"), ("mlp.act", "nao", "cs")])
def test_without_a_name_the_metrics_run_that_the_sites_can_feed(values, tmp_path, site, fits, other):
    told = []
    store = write_store(tmp_path / "one.acts", {site: values[site]}, demand=DEMAND)
    analysis = workflows.analyze(store, note=told.append)
    assert {r.name for r in analysis.results} == {fits, "contrast"}
    assert len(told) == 1
    assert f"left out: metric {other} reads" in told[0]


def test_without_a_name_and_a_readable_site_the_first_problem_is_told(values, store):
    with pytest.raises(BabelScopeError, match=r"holds no site mlp\.out"):
        results(store, None, sites=["mlp.out"])
    assert list(results(store, None, sites=["mlp.act@0"], mode="paper")) == ["nao", "contrast"]


def test_heads_are_compared_as_one_vector_and_sites_without_layers_have_one_row(tmp_path):
    rng = np.random.default_rng(2)
    heads = np.stack([activations(rng, 3, 6, 8, shared=1.0) for _ in range(2)])
    embedding = activations(rng, 3, 6, 8, shared=0.0)[None]
    store = write_store(
        tmp_path / "heads.acts", {"attn.heads": heads.reshape(2, 3, 6, 2, 4), "embed": embedding}, n_layers=2
    )
    found = results(store, ["cs"])["cs"]
    row = rows(found, site="attn.heads", layer=1, variant="raw", language_a="en", language_b="de")
    expected = np.mean([slow_cosine(heads[1, 0, i], heads[1, 1, i]) for i in range(6)])
    assert row["matched"].item() == pytest.approx(expected, abs=1e-6)
    assert rows(found, site="embed")["layer"].isna().all()
    assert len(rows(found, site="embed", variant="raw", language_a="*")) == 1
    assert rows(found, mode="paper").empty  # resid.post was not captured


def test_sites_and_layers_can_be_chosen(store):
    found = results(store, sites=["resid.post@1", "mlp.act@-1"])
    for name in ("cs", "nao"):
        assert set(found[name].table["layer"].dropna()) == {1}


def test_metrics_can_carry_their_own_parameters(store):
    table = results(store, [NeuronOverlap(threshold=0.2, similarity=Jaccard)], mode="corrected")["nao"].table
    assert set(zip(table["variant"], table["threshold"], strict=True)) == {("jaccard", 0.2)}


def test_one_mode_gives_only_its_rows(store):
    for mode in ("paper", "corrected"):
        for name in ("cs", "nao"):
            assert set(results(store, [name], mode=mode)[name].table["mode"]) == {mode}


def test_progress_counts_every_block(store):
    calls = []
    results(store, progress=lambda done, total, what: calls.append((done, total, what)))
    assert [c[0] for c in calls] == [1, 2, 3, 4]
    assert calls[-1][1:] == (4, "analyze nao mlp.act@1")


@pytest.mark.parametrize(
    ("options", "problem", "hint"),
    [
        ({"metrics": ["cos"]}, "no metric called 'cos'", "cs"),
        ({"metrics": []}, "no metric was named", "--metric"),
        ({"metrics": ["cs"], "sites": ["mlp.act"]}, "cs reads", "--site resid.post"),
        ({"metrics": ["nao"], "sites": ["mlp.neurons"]}, "holds no site mlp.neurons", "--site mlp.neurons"),
        ({"metrics": ["cs"], "sites": ["resid.post@7"]}, "resid.post@7", "layers are 0 to 1"),
        ({"metrics": ["cs"], "languages": ["en"]}, "one language", "--languages"),
        ({"metrics": ["cs"], "languages": ["en", "xx"]}, "'xx'", "known"),
        ({"metrics": ["cs"], "by": "demnad"}, "'demnad'", "demand"),
        ({"metrics": ["cs"], "position": "mean"}, "no position mean", "--position mean"),
        ({"metrics": ["cs"], "sweep": {"threshold": [0.4]}}, "'threshold'", "known"),
        ({"metrics": ["nao"], "sweep": {"treshold": [0.4]}}, "'treshold'", "threshold"),
        ({"metrics": ["nao"], "sweep": {"threshold": []}}, "no values", "threshold=0.1:0.9:0.05"),
        ({"metrics": ["nao"], "sweep": {"top": [2.0]}}, "top 2", "top=0.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_analyzed_is_refused_with_the_next_step(store, options, problem, hint):
    with pytest.raises(BabelScopeError) as caught:
        results(store, **options)
    assert problem in caught.value.problem
    assert hint in caught.value.hint


def test_a_group_of_three_items_is_refused_by_name(values, tmp_path):
    store = write_store(tmp_path / "few.acts", values, demand=["knowledge"] * 3 + ["knowledge-free"] * 21)
    with pytest.raises(BabelScopeError, match="'knowledge' has 3 items"):
        results(store, ["cs"])
    assert set(results(store, ["cs"], by=None)["cs"].table["n"]) == {24}


def test_published_definitions_are_refused_at_other_positions(values, tmp_path):
    store = write_store(tmp_path / "mean.acts", {"resid.post": values["resid.post"]}, positions=("mean",))
    with pytest.raises(BabelScopeError, match=r"reads resid\.post at last"):
        results(store, ["cs"], mode="paper")
    assert set(results(store, ["cs"])["cs"].table["mode"]) == {"corrected"}
