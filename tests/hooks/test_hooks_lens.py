"""The lens says of the last layer what the model says, in every architecture, and of others what the formula says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from model_zoo import DECODERS, ENCODER_DECODERS, FURTHER, FURTHER_ENCODERS, MIXTURES
from transformers import PreTrainedTokenizerFast

import babelscope as bs
from babelscope.datasets.scripts import NO_SCRIPT, main_script
from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel
from babelscope.hooks.answers import label_tokens, labels_of
from babelscope.hooks.interventions import activations, next_logits, read_prompts
from babelscope.hooks.interventions.lens import lens, vocabulary_size
from babelscope.hooks.selftest import count_hooks
from babelscope.hooks.vocabulary import FRAGMENT, SPECIAL, first_tokens, token_scripts
from babelscope.schema import PromptSet, Site

Load = Callable[[str], LoadedModel]
PREDICTING = [*DECODERS, *MIXTURES, *(n for n in FURTHER if n not in FURTHER_ENCODERS), *ENCODER_DECODERS]
CLASSES = np.arange(320) % 3


def stream(loaded: LoadedModel, prompts: PromptSet, layer: int) -> np.ndarray:
    batch = read_prompts(loaded, prompts.prompts)
    site = Site("resid.post", layer % len(loaded.anatomy.output_stack.layers), loaded.anatomy.output_stack.tag)
    return activations(loaded, batch, [site], "last")[site].values.float().numpy()


@pytest.mark.parametrize("name", PREDICTING)
def test_at_the_last_layer_the_lens_is_what_the_model_says(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    hooks = count_hooks(loaded.model)
    rows = stream(loaded, prompts, -1)
    with torch.no_grad():
        own = torch.softmax(next_logits(loaded, read_prompts(loaded, prompts.prompts)).double(), dim=-1).numpy()
    found = lens(loaded, rows, range(320), CLASSES)
    np.testing.assert_allclose(found.probabilities, own, rtol=1e-4, atol=1e-6)
    bits = [-sum(p * np.log2(p) for p in row if p > 0) for row in own]
    np.testing.assert_allclose(found.entropy, bits, rtol=1e-4)
    for k in range(3):
        np.testing.assert_allclose(found.masses[:, k], own[:, k::3].sum(axis=1), rtol=1e-4)
    assert count_hooks(loaded.model) == hooks


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "granite", "cohere"])
def test_in_the_middle_it_is_the_softmax_of_the_unembedded_norm(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    rows = stream(loaded, prompts, 1)
    norm, config = loaded.anatomy.output_stack.final_norm, loaded.model.config
    assert norm is not None
    assert loaded.anatomy.unembedding is not None
    with torch.no_grad():
        logits = norm(torch.from_numpy(rows)) @ loaded.anatomy.unembedding.weight.T
    if name == "gemma2":
        logits = config.final_logit_softcapping * torch.tanh(logits / config.final_logit_softcapping)
    logits = logits * {"cohere": getattr(config, "logit_scale", 1)}.get(name, 1)
    logits = logits / {"granite": getattr(config, "logits_scaling", 1)}.get(name, 1)
    own = torch.softmax(logits.double(), dim=-1).numpy()
    np.testing.assert_allclose(lens(loaded, rows, [3, 7], CLASSES).probabilities, own[:, [3, 7]], rtol=1e-4, atol=1e-7)


def test_stored_rows_of_the_last_layer_give_the_scores_that_the_capture_kept(
    load: Load, folder_of: Callable[[str], Path], prompts: PromptSet, tmp_path: Path
) -> None:
    store = bs.capture(tmp_path / "run.acts", model=str(folder_of("gemma2")), prompts=prompts, sites=["resid.post@-1"])
    loaded = load("gemma2")
    rows = store.select("resid.post@2").numpy()
    answers = store.answers.set_index(["language", "item"])
    for k, language in enumerate(store.languages):
        found = lens(loaded, rows[k], range(320), CLASSES).probabilities
        for i, item in enumerate(store.items):
            prompt = next(p for p in prompts.of(language) if p.item == item)
            labels = label_tokens(loaded.tokenizer, labels_of(prompt))
            own = [np.log(found[i, list(ids)].max()) for ids in labels]
            kept = answers.loc[(language, item), ["score_0", "score_1"]].astype(float)
            np.testing.assert_allclose(own, kept, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "site"), [("llama", "resid.post"), ("mt5", "dec.resid.post"), ("gpt-oss", "resid.post")]
)
def test_the_recipe_reads_the_stack_that_the_unembedding_reads(
    name: str, site: str, folder_of: Callable[[str], Path], prompts: PromptSet, tmp_path: Path
) -> None:
    store = bs.capture(tmp_path / "run.acts", model=str(folder_of(name)), prompts=prompts, sites=[site])
    found = bs.analyze(store, recipes="latent-language")
    table = found["latent_language"].table
    assert set(table["site"]) == {site}
    assert found["latent_language"].provenance["last_layer_error"] < 1e-5
    # Options that are written alike tell no languages apart.
    assert set(table[table["claim"].str.contains("above the input")]["verdict"]) == {"not testable with this data"}


def test_rows_do_not_see_each_other_and_one_that_is_not_finite_is_undefined(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    rows = stream(loaded, prompts, 1)
    whole = lens(loaded, rows, [5], CLASSES)
    broken = rows.copy()
    broken[2] = np.inf
    found = lens(loaded, broken, [5], CLASSES)
    assert np.isnan([found.probabilities[2, 0], found.entropy[2], found.masses[2, 0]]).all()
    others = np.arange(len(rows)) != 2
    np.testing.assert_allclose(found.probabilities[others], whole.probabilities[others], rtol=1e-5)
    alone = lens(loaded, rows[:1], [5], CLASSES)
    np.testing.assert_allclose(alone.probabilities, whole.probabilities[:1], rtol=1e-5)


def test_no_rows_give_no_numbers_and_wrong_ones_are_refused(load: Load) -> None:
    loaded = load("llama")
    assert vocabulary_size(loaded) == 320
    width = loaded.anatomy.output_stack.width
    assert lens(loaded, np.empty((0, width)), [1, 2], CLASSES).probabilities.shape == (0, 2)
    with pytest.raises(BabelScopeError, match="width"):
        lens(loaded, np.zeros((2, width + 1)), [1], CLASSES)
    with pytest.raises(BabelScopeError, match="next token"):
        lens(load("bert"), np.zeros((2, width)), [1], CLASSES)


def test_first_tokens_are_those_of_both_spellings_and_never_a_mere_space(load: Load) -> None:
    tokenizer = load("llama").tokenizer
    for word in ("capital", "Hauptstadt", "首都", "x"):
        slow = set()
        for spelled in (word, " " + word):
            tokens = tokenizer.convert_ids_to_tokens(tokenizer(spelled, add_special_tokens=False)["input_ids"])
            slow.add(tokens[1] if tokens[0] == "Ġ" else tokens[0])
        assert {tokenizer.convert_ids_to_tokens([i])[0] for i in first_tokens(tokenizer, word)} == slow
    assert first_tokens(tokenizer, "  ") == frozenset()


def test_scripts_of_tokens_are_those_of_their_letters(load: Load) -> None:
    tokenizer: PreTrainedTokenizerFast = load("llama").tokenizer
    scripts = token_scripts(tokenizer, 330)
    assert len(scripts) == 330
    assert set(scripts[320:]) == {SPECIAL}
    vocabulary = tokenizer.get_vocab()
    assert scripts[vocabulary["<s>"]] == SPECIAL
    assert scripts[vocabulary["A"]] == "Latin"
    assert scripts[vocabulary["1"]] == scripts[vocabulary["Ġ"]] == NO_SCRIPT
    assert scripts[vocabulary["ä"]] == FRAGMENT  # the byte 0xE4, the first of many Chinese characters


@pytest.mark.parametrize(
    ("text", "script"),
    [
        *[("Morocco", "Latin"), ("Марокко", "Cyrillic"), ("摩洛哥", "Han"), ("モロッコー", "Katakana")],
        *[("ひらがな", "Hiragana"), ("المغرب", "Arabic"), ("מרוקו", "Hebrew"), ("मोरक्को", "Devanagari")],
        *[("한국", "Hangul"), ("323 %", NO_SCRIPT), ("Ａｌ", "Latin"), ("ªº", "Latin"), ("ʰ", "Latin")],
        *[("aбв", "Cyrillic"), ("é", "Latin"), ("", NO_SCRIPT)],
    ],
)
def test_the_script_of_a_word_is_that_of_most_of_its_letters(text: str, script: str) -> None:
    assert main_script([text]) == script
