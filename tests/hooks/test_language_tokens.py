"""Translation models name languages in three ways, and prompts name them in one."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from model_zoo import tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel
from babelscope.hooks.language_tokens import _ISO_639_3, language_token
from babelscope.hooks.tokens import decoder_tokens, encode
from babelscope.schema import PromptSet

Load = Callable[[str], LoadedModel]

OURS = ("en", "de", "fr", "it", "es", "ru", "pl", "ar", "he", "fa", "zh", "ja", "hi", "sw")  # of the generators
STYLES = {"m2m100": [f"__{code}__" for code in M2M["m2m100"]], "mbart": MBART, "nllb": NLLB}


def knowing(*tokens: str) -> PreTrainedTokenizerFast:
    made = tokenizer(special=True)
    made.add_tokens(list(tokens), special_tokens=True)
    return made


@pytest.mark.parametrize("style", STYLES)
def test_every_language_of_the_generators_has_its_token(style: str) -> None:
    made = knowing(*STYLES[style])
    for language in OURS:
        token = made.convert_ids_to_tokens(language_token(made, language))
        assert token in STYLES[style]


@pytest.mark.parametrize(
    ("style", "language", "token"),
    [
        ("m2m100", "sw", "__sw__"),
        ("m2m100", "zh-Hant", "__zh__"),
        ("mbart", "pt", "pt_XX"),
        ("mbart", "pt-BR", "pt_XX"),
        ("nllb", "en", "eng_Latn"),
        ("nllb", "sw", "swh_Latn"),  # ISO 639-3 has `swa` for Swahili at large
        ("nllb", "ar", "arb_Arab"),
        ("nllb", "zh", "zho_Hans"),
        ("nllb", "zh-Hant", "zho_Hant"),
        ("nllb", "zh-Hant-TW", "zho_Hant"),
        ("nllb", "swh_Latn", "swh_Latn"),
        ("nllb", "kas-Deva", "kas_Deva"),
        ("nllb", "yue", "yue_Hant"),
    ],
)
def test_a_language_is_named_as_the_model_names_it(style: str, language: str, token: str) -> None:
    made = knowing(*STYLES[style])
    assert made.convert_ids_to_tokens(language_token(made, language)) == token


def test_a_language_in_two_scripts_is_not_guessed() -> None:
    with pytest.raises(BabelScopeError, match="several tokens for the language 'kas': kas_Arab, kas_Deva") as error:
        language_token(knowing(*NLLB), "kas")
    assert "kas-Arab" in error.value.hint


def test_a_language_that_the_model_lacks_is_refused() -> None:
    for made in (knowing(), knowing("__en__"), knowing("en_XX"), knowing("eng_Latn")):
        with pytest.raises(BabelScopeError, match="no token for the language 'sw'"):
            language_token(made, "sw")


def test_every_code_of_the_table_is_one_of_nllb() -> None:
    assert len(_ISO_639_3) > 100
    for code, name in _ISO_639_3.items():
        assert len(code) == 2 or code == name
        assert [t for t in NLLB if t == name or t.startswith(f"{name}_")], code


def test_each_decoder_starts_with_the_language_of_its_prompt(load: Load, prompts: PromptSet) -> None:
    loaded = replace(load("m2m100"), tokenizer=knowing("eng_Latn", "swh_Latn", "zho_Hans"))
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.prompts])
    found = decoder_tokens(loaded, "language", prompts.prompts, encoded)
    start = loaded.model.config.decoder_start_token_id
    assert {(len(e), e.ids[0]) for e in found} == {(2, start)}
    names = loaded.tokenizer.convert_ids_to_tokens([e.ids[1] for e in found])
    assert names == [{"en": "eng_Latn", "sw": "swh_Latn", "zh": "zho_Hans"}[p.language] for p in prompts.prompts]
