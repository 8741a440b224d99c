"""Translations of known quality: good, of other items, copied, empty."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.analyses.behavior import translation_measures
from babelscope.analyses.behavior.translation import first_line, has_translations, translation
from babelscope.analyses.behavior.translation_measures import tokenizer_of
from babelscope.analyses.statistics import NOT_DISTINGUISHABLE, NOT_TESTABLE, SUPPORTED
from babelscope.datasets.translation import translation_prompts
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet
from babelscope.workflows import evaluate
from tests.store.stores import make_block, make_plan

N = 24
WORDS = {
    "en": [
        "house",
        "river",
        "window",
        "garden",
        "winter",
        "mother",
        "orange",
        "letter",
        "silver",
        "mountain",
        "yellow",
    ],
    "de": ["Haus", "Fluss", "Fenster", "Garten", "Winter", "Mutter", "Orange", "Brief", "Silber", "Berg", "gelb"],
    "ja": ["家家", "川川", "窓窓", "庭庭", "冬冬", "母母", "橙橙", "手紙", "銀銀", "山山", "黄黄"],
}


def sentences(language):
    """Seven words drawn for each item, the same ones in every language."""
    rng = np.random.default_rng(0)
    return [" ".join(WORDS[language][k] for k in rng.integers(0, 11, size=7)) for _ in range(N)]


def parallel(languages):
    return PromptSet("p", tuple(Prompt(f"q{i:02d}", g, t) for g in languages for i, t in enumerate(sentences(g))))


def store_of(path, written, pairs=("en-de",), change=lambda p: p):
    """A store of translation prompts whose continuations are `written(source, reference, place)`."""
    asked = translation_prompts(parallel(["en", "de", "ja"]), pairs, shots=1)
    prompts = PromptSet(asked.name, tuple(change(p) for p in asked.prompts))
    plan = make_plan(prompts, answers="", continuation=32)
    with StoreWriter.create(path, plan, prompts, {}) as writer:
        for language, index in writer.pending():
            block = make_block(plan, language, index)
            own = [prompts.of(language)[i] for i in block.items]
            texts = tuple(
                written(p.segment("question"), p.answer, int(i)) for p, i in zip(own, block.items, strict=True)
            )
            writer.put(replace(block, answers=replace(block.answers, continuation=texts)))
    return ActivationStore.open(path)


def run(store, **options):
    table, items = translation(store, **{"n_boot": 200, "n_perm": 39} | options)
    return table.table.set_index(["measure", "language"]), items.table, table.provenance


def test_good_translations_are_above_other_items_and_above_copying(tmp_path):
    noisy = lambda source, reference, i: f" {reference[: -1 - i % 5]}\n\nEnglish: and so on"  # noqa: E731
    store = store_of(tmp_path / "s.acts", noisy, pairs=("en-de", "de-en"))
    table, items, about = run(store)
    assert set(table.index) == {(m, c) for m in ("chrF", "BLEU") for c in ("en-to-de", "de-to-en")}
    assert (table["verdict"] == SUPPORTED).all()
    assert (table["verdict_copy"] == SUPPORTED).all()
    assert (table["low"] > table["null"]).all()
    assert (table[["n", "n_empty", "n_copies"]] == [N, 0, 0]).all(axis=None)
    outputs = [sentences("de")[i][: -1 - i % 5].strip() for i in range(N)]
    refs = [sentences("de")]
    assert table.loc[("chrF", "en-to-de"), "score"] == pytest.approx(CHRF().corpus_score(outputs, refs).score)
    assert table.loc[("BLEU", "en-to-de"), "score"] == pytest.approx(BLEU().corpus_score(outputs, refs).score)
    assert table.loc[("chrF", "en-to-de"), "copy"] == pytest.approx(CHRF().corpus_score(sentences("en"), refs).score)
    sentence = CHRF().sentence_score(outputs[5], [refs[0][5]]).score
    row = items[(items["item"] == "q05") & (items["language"] == "en-to-de")].iloc[0]
    assert row["chrf"] == pytest.approx(sentence)
    assert row["output"] == outputs[5]
    assert "tok:13a" in about["signatures"]["BLEU en-to-de"]


def test_the_null_is_the_score_of_outputs_beside_references_of_other_items(tmp_path):
    store = store_of(tmp_path / "s.acts", lambda source, reference, i: reference)
    table, _, _ = run(store)
    refs = sentences("de")
    others = [(refs[i], refs[j]) for i in range(N) for j in range(N) if i != j]
    slow = CHRF().corpus_score([a for a, _ in others], [[b for _, b in others]]).score
    assert table.loc[("chrF", "en-to-de"), "null"] == pytest.approx(slow, abs=1.0)
    assert table.loc[("chrF", "en-to-de"), "score"] == pytest.approx(100)
    assert table.loc[("chrF", "en-to-de"), "p"] == 1 / 40


def test_translations_of_other_items_are_not_distinguishable_from_the_null(tmp_path):
    refs = sentences("de")
    store = store_of(tmp_path / "s.acts", lambda source, reference, i: refs[(i + 7) % N])
    table, _, _ = run(store)
    assert (table["verdict"] == NOT_DISTINGUISHABLE).all()
    assert (table["p"] > 0.05).all()


def test_a_score_that_smoothing_makes_is_at_its_null(tmp_path):
    # Single words match and no longer ones: BLEU is not 0 then, and the smaller the corpus the higher.
    store = store_of(tmp_path / "s.acts", lambda source, reference, i: "of all of this Winter is there")
    row = run(store)[0].loc[("BLEU", "en-to-de")]
    assert row["score"] > 0
    assert row["null"] == pytest.approx(row["score"], rel=0.1)
    assert row["p"] == 1
    assert row["verdict"] == NOT_DISTINGUISHABLE


def test_copies_are_counted_and_are_not_above_copying(tmp_path):
    store = store_of(tmp_path / "s.acts", lambda source, reference, i: source.upper() if i < 20 else reference)
    table, items, _ = run(store)
    row = table.loc[("chrF", "en-to-de")]
    assert row["n_copies"] == items["is_copy"].sum() == 20
    assert row["copies"] == pytest.approx(20 / N)
    assert row["copies_low"] < row["copies"] < row["copies_high"]
    store = store_of(tmp_path / "all.acts", lambda source, reference, i: source)
    row = run(store)[0].loc[("chrF", "en-to-de")]
    assert (row["above_copy"], row["p_copy"], row["verdict_copy"]) == (0, 1, NOT_DISTINGUISHABLE)
    assert row["score"] == row["copy"] > 0  # what a model that translates nothing gets


def test_empty_outputs_are_counted_and_score_nothing(tmp_path):
    store = store_of(tmp_path / "s.acts", lambda source, reference, i: " \n \n" if i % 2 else reference)
    table, items, _ = run(store)
    assert (table["n_empty"] == N // 2).all()
    assert (items.loc[items["is_empty"], "chrf"] == 0).all()
    empty = run(store_of(tmp_path / "none.acts", lambda source, reference, i: ""))[0]
    assert (empty["score"] == 0).all()
    assert not (empty["verdict"] == SUPPORTED).any()


def test_items_without_a_reference_do_not_count(tmp_path):
    bare = lambda p: replace(p, answer="") if p.item < "q10" else p  # noqa: E731
    table, _, _ = run(store_of(tmp_path / "s.acts", lambda source, reference, i: "Haus", change=bare))
    assert (table[["n", "n_no_reference"]] == [N - 10, 10]).all(axis=None)
    with pytest.raises(BabelScopeError, match="no item has a reference"):
        run(store_of(tmp_path / "none.acts", lambda *_: "Haus", change=lambda p: replace(p, answer="")))


def test_the_first_line_counts_behind_the_line_ends_that_an_output_begins_with():
    assert [first_line(t) for t in (" a b \nc", "\n\na\r\nb", " \n", "")] == ["a b", "a", "", ""]


def test_languages_without_spaces_have_a_tokenizer_of_their_own(tmp_path, monkeypatch):
    assert [tokenizer_of(g) for g in ("zh", "zh-Hant", "th", "sw")] == ["zh", "zh", "char", "13a"]
    monkeypatch.setattr(translation_measures.importlib.util, "find_spec", lambda name: None)
    assert tokenizer_of("ja") == "char"
    monkeypatch.undo()
    if tokenizer_of("ja") == "char":
        store = store_of(tmp_path / "s.acts", lambda source, reference, i: reference, pairs=("en-ja",))
        assert "tok:char" in run(store)[2]["signatures"]["BLEU en-to-ja"]


def test_evaluate_gives_translations_where_a_store_has_them_and_refuses_comet_elsewhere(tmp_path):
    store = store_of(tmp_path / "s.acts", lambda source, reference, i: reference)
    assert has_translations(store)
    found = evaluate(store)
    assert [r.name for r in found.results] == ["translation", "translation_items"]
    assert "chrF" in found.summary()
    assert len(found.headline()) == 0
    assert len(found.save(tmp_path / "tables")) == 6
    plain = parallel(["en", "de"])
    plan = make_plan(plain, answers="")
    with StoreWriter.create(tmp_path / "plain.acts", plan, plain, {}) as writer:
        for language, index in writer.pending():
            writer.put(make_block(plan, language, index))
    other = ActivationStore.open(tmp_path / "plain.acts")
    assert not has_translations(other)
    with pytest.raises(BabelScopeError, match="no continuations of translation prompts"):
        translation(other)
    with pytest.raises(BabelScopeError, match="no translations for COMET"):
        evaluate(other, comet="x.ckpt")


def test_what_is_not_installed_is_named_with_how_to_get_it(tmp_path, monkeypatch):
    store = store_of(tmp_path / "s.acts", lambda source, reference, i: reference)
    found = translation_measures.importlib.util.find_spec
    monkeypatch.setattr(translation_measures.importlib.util, "find_spec",
                        lambda name: None if name in ("comet", "sacrebleu") else found(name))  # fmt: skip
    with pytest.raises(BabelScopeError, match="COMET is not installed"):
        run(store, comet="model.ckpt")
    with pytest.raises(BabelScopeError, match=r"babelscope\[translation\]"):
        run(store)


def test_a_comet_model_is_scored_by_item_beside_one_shuffle(tmp_path, monkeypatch):
    store = store_of(tmp_path / "s.acts", lambda source, reference, i: reference)
    found = translation_measures.importlib.util.find_spec
    monkeypatch.setattr(translation_measures.importlib.util, "find_spec",
                        lambda name: name == "comet" or found(name))  # fmt: skip

    class Model:
        def predict(self, data, gpus):
            return SimpleNamespace(scores=[float(row["mt"] == row["ref"]) for row in data])

    monkeypatch.setitem(sys.modules, "comet", SimpleNamespace(load_from_checkpoint=lambda path: Model()))
    with pytest.raises(BabelScopeError, match="no COMET checkpoint"):
        run(store, comet=str(tmp_path / "none.ckpt"))
    (tmp_path / "model.ckpt").touch()
    row = run(store, comet=str(tmp_path / "model.ckpt"))[0].loc[("COMET", "en-to-de")]
    assert (row["score"], row["copy"], row["null"]) == (1, 0, 0)
    assert row["verdict"] == NOT_TESTABLE  # one shuffle is no test
    assert row["verdict_copy"] == SUPPORTED
