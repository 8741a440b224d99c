"""A patched last token says what its source would say, and a prompt's own state changes nothing."""

import numpy as np
import pytest

import babelscope as bs
from babelscope import workflows
from babelscope.hooks import interventions as iv
from babelscope.hooks import load_model
from babelscope.hooks.interventions.patching import gold_tokens, token_logits
from babelscope.hooks.vocabulary import first_tokens
from babelscope.schema import Prompt, Site

TOKENS = (5, 17, 300, 1000)


@pytest.fixture(scope="module")
def loaded():
    return load_model(workflows.model_path("organism"), device="cpu")


@pytest.fixture(scope="module")
def prompts():
    return bs.generate("knowledge-bare", languages=["en", "de"]).select(limit=5)


@pytest.fixture(scope="module")
def states(loaded, prompts):
    sites = [Site("resid.post", layer) for layer in range(loaded.ref.n_layers)]
    return {g: iv.activations(loaded, iv.read_prompts(loaded, prompts.of(g)), sites, "last") for g in prompts.languages}


def test_without_a_patch_the_logits_are_those_of_the_model(loaded, prompts):
    found = token_logits(loaded, prompts.of("en"), TOKENS)
    for row, prompt in zip(found, prompts.of("en"), strict=True):
        alone = iv.next_logits(loaded, iv.read_prompts(loaded, [prompt]))[0, list(TOKENS)]
        np.testing.assert_allclose(row, alone.detach().numpy(), atol=1e-4)


def test_a_prompts_own_state_changes_nothing_in_any_layer(loaded, prompts, states):
    whole = token_logits(loaded, prompts.of("en"), TOKENS)
    for site, own in states["en"].items():
        found = token_logits(loaded, prompts.of("en"), TOKENS, site, own.values.numpy())
        np.testing.assert_allclose(found, whole, atol=1e-4)


def test_behind_the_last_layer_a_prompt_says_what_its_source_says(loaded, prompts, states):
    site = Site("resid.post", loaded.ref.n_layers - 1)
    order = np.array([3, 0, 4, 1, 2])
    found = token_logits(loaded, prompts.of("en"), TOKENS, site, states["de"][site].values.numpy()[order])
    np.testing.assert_allclose(found, token_logits(loaded, prompts.of("de"), TOKENS)[order], atol=1e-4)
    early = Site("resid.post", 0)
    mixed = token_logits(loaded, prompts.of("en"), TOKENS, early, states["de"][early].values.numpy()[order])
    assert np.abs(mixed - found).max() > 0.1  # what earlier tokens hold is still of the prompt


def test_no_prompt_has_no_logits(loaded):
    assert token_logits(loaded, [], TOKENS).shape == (0, 4)


def test_answers_are_known_by_their_letter_or_by_their_first_tokens(loaded):
    lettered = Prompt("x", "en", "?", letters=("A", "B"), options=("one", "two"), gold=1)
    letter = {loaded.tokenizer.encode(s, add_special_tokens=False)[-1] for s in ("B", " B")}
    assert gold_tokens(loaded, lettered) <= letter
    bare = Prompt("x", "en", "?", options=("one", "two"), gold=1)
    assert gold_tokens(loaded, bare) == first_tokens(loaded.tokenizer, "two")
    assert gold_tokens(loaded, Prompt("x", "en", "?", answer="one")) == first_tokens(loaded.tokenizer, "one")
    assert gold_tokens(loaded, Prompt("x", "en", "?")) == frozenset()
    assert gold_tokens(loaded, Prompt("x", "en", "?", letters=("A", "B"))) == frozenset()
