import dataclasses
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from babelscope import workflows
from babelscope.datasets.dataset import split_of
from babelscope.datasets.statements import truth_words
from babelscope.errors import BabelScopeError
from babelscope.training.corpus import Ingredient
from babelscope.training.encoder_accuracy import answered
from babelscope.training.encoder_corpus import (
    KNOWLEDGE,
    LANGUAGES,
    REASONING,
    TRANSLATION,
    TRANSLATIONS,
    passages,
    statements,
    truth_table,
)
from babelscope.training.encoder_organism import STAGES, EncoderRecipe, collate, encode, train_encoder_organism
from babelscope.training.truth import read_truth

TINY = dataclasses.replace(EncoderRecipe(), width=32, layers=2, heads=2, mlp_width=48, sample=400).shortened(16)
MIXTURES = [phase.mixture for stage in STAGES for phase in stage.phases]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "model"
    train_encoder_organism(TINY, folder)
    return folder


@pytest.fixture(scope="module")
def taught():
    """What the recipe draws, on fewer passages."""
    return [p for number, mixture in enumerate(MIXTURES) for p in passages(mixture, 6000, number)]


def test_the_folder_loads_as_any_other_masked_language_model(trained):
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(trained), AutoTokenizer.from_pretrained(trained)
    assert type(model).__name__ == "BertForMaskedLM"
    pair = tokenizer("Henry is brave.", "Henry is brave. true", return_tensors="pt")
    assert tokenizer.decode(pair.input_ids[0]).count("[SEP]") == 2
    assert "token_type_ids" not in pair
    assert model(**pair).logits.shape[-1] == len(tokenizer)
    assert read_truth(trained) == truth_table()


def test_the_same_recipe_gives_the_same_weights_and_another_seed_others(trained, tmp_path):
    same, other = tmp_path / "same", tmp_path / "other"
    train_encoder_organism(TINY, same)
    train_encoder_organism(dataclasses.replace(TINY, seed=1), other)
    weights = [AutoModelForMaskedLM.from_pretrained(f).state_dict() for f in (trained, same, other)]
    assert all(torch.equal(t, weights[1][n]) for n, t in weights[0].items())
    assert not all(torch.equal(t, weights[2][n]) for n, t in weights[0].items() if t.shape == weights[2][n].shape)


def test_a_stage_that_reached_its_stop_is_loaded_and_not_trained_again(tmp_path):
    stage = dataclasses.replace(TINY.stages[0], stop=2)
    recipe = dataclasses.replace(TINY, stages=(stage, TINY.stages[1]))
    train_encoder_organism(recipe, tmp_path)
    before = AutoModelForMaskedLM.from_pretrained(tmp_path).state_dict()
    shutil.rmtree(tmp_path / "checkpoints" / "1")
    train_encoder_organism(recipe, tmp_path, resume=True)
    for name, tensor in AutoModelForMaskedLM.from_pretrained(tmp_path).state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-6)


def test_the_verb_refuses_what_it_cannot_train(tmp_path):
    with pytest.raises(BabelScopeError, match="does not exist"):
        workflows.train_organism(tmp_path / "a", kind="encoder-organism", resume=True)
    with pytest.raises(BabelScopeError, match="organism"):
        workflows.train_organism(tmp_path / "a", kind="encoder")


def test_nothing_is_said_in_a_language_that_is_not_taught_it(taught):
    table = truth_table()
    said = Counter()
    for p in taught:
        if p.family == TRANSLATION:
            assert p.languages in TRANSLATIONS or p.languages[::-1] in TRANSLATIONS
            continue
        language = p.languages[0]
        assert p.languages == (language, language)
        item = None if p.family in REASONING else p.item
        assert table.taught(p.family, language, item), p
        said[p.family, language] += 1
    cells = {(f.name, language) for f in table.families for language in f.languages}
    assert set(said) == cells
    assert min(said.values()) >= 5


def test_the_one_language_families_are_absent_from_the_text_of_others(taught):
    # By the text alone, not by what the passages say of themselves: the words of question and rule.
    assert any("Währung" in p.second for p in taught)
    assert not any("currency" in p.second for p in taught)
    assert any("idioma" in p.second for p in taught)
    assert not any("official language" in p.second for p in taught)
    assert not any(" and " in p.first for p in taught if p.languages == ("en", "en"))
    assert any(" et " in p.first for p in taught if p.languages == ("fr", "fr"))


@pytest.mark.parametrize("kind", REASONING)
def test_neither_theory_nor_statement_alone_tells_the_label(kind):
    drawn = statements(kind, ["en"], 800, np.random.default_rng(0))
    assert np.mean([p.label for p in drawn]) == 0.5
    for part in ("first", "second"):
        names = [int("Henry" in getattr(p, part)) for p in drawn]
        assert abs(np.corrcoef(names, [p.label for p in drawn])[0, 1]) < 0.15


@pytest.mark.parametrize(("kind", "expected"), [("fact", 1), ("fact-negated", 0)])
def test_labels_agree_with_what_is_read_from_the_text(kind, expected):
    for p in statements(kind, ["en"], 200, np.random.default_rng(0)):
        assert p.label == (expected if p.second.replace(" not", "") in p.first else 1 - expected)


def test_splits_share_no_theory_and_code_switched_statements_are_of_the_same_theories():
    train, test = (
        {p.item for p in statements("fact", ["en"], 500, np.random.default_rng(0), s)} for s in ("train", "test")
    )
    assert not train & test
    assert {split_of(item) for item in test} == {"test"}
    whole, mixed = (statements("any", [code], 20, np.random.default_rng(1)) for code in ("fr", "en-fr"))
    assert [p.second for p in whole] == [p.second for p in mixed]
    assert not {p.first for p in whole} & {p.first for p in mixed}
    assert {p.answer for p in mixed} <= set(truth_words("fr"))


def test_the_answer_is_always_masked_except_in_a_cloze(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    drawn = passages(
        (Ingredient("any", 1), Ingredient("any", 1, parameters={"cloze": True}), Ingredient(KNOWLEDGE, 1)), 300, 0
    )
    rows = encode(drawn, tokenizer)
    torch.manual_seed(0)
    batch = collate(rows, tokenizer)
    for i, (row, passage) in enumerate(zip(rows, drawn, strict=True)):
        span = slice(row.answer, len(row.ids) - 1)
        assert list(row.ids[span]) == tokenizer(passage.answer, add_special_tokens=False).input_ids
        assert row.ids[0] == tokenizer.cls_token_id
        if passage.cloze:
            assert (batch["labels"][i, : row.second] == -100).all()
            assert not batch["answer"][i].any()
        else:
            assert (batch["input_ids"][i, span] == tokenizer.mask_token_id).all()
            assert (batch["labels"][i, span].numpy() == row.ids[span]).all()
    plain = (batch["labels"] != -100) & ~batch["answer"]
    words = batch["attention_mask"].sum() - 3 * len(rows)
    assert 0.05 < plain.sum() / words < 0.15


def test_no_word_of_a_theory_is_unknown_and_names_and_properties_are_one_token(trained, taught):
    from babelscope.datasets.words import wording

    tokenizer = AutoTokenizer.from_pretrained(trained)
    texts = [f"{p.first} {p.second} {p.answer}" for p in taught if p.family in REASONING]
    assert not any(tokenizer.unk_token_id in ids for ids in tokenizer(texts).input_ids)
    for language in LANGUAGES:
        for word in (*wording(language).names.values(), *wording(language).adjectives.values()):
            if " " not in word and "-" not in word:
                assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1, word


def test_an_untrained_model_answers_at_chance(trained):
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(trained), AutoTokenizer.from_pretrained(trained)
    right = answered(model, tokenizer, statements("fact", ["en"], 200, np.random.default_rng(0), "test"))
    assert 0.4 < right.mean() < 0.6
