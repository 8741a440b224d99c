"""Translation models name languages in three ways, and prompts name them in one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_zoo import LINES, tokenizer
from transformers import (
    M2M100Tokenizer,
    MBart50Tokenizer,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, check_lengths, make_plan, run_plan
from babelscope.hooks.language_tokens import _ISO_639_3, language_token, source_token
from babelscope.hooks.tokens import decoder_tokens, encode, encode_prompts
from babelscope.schema import Position, Prompt, PromptSet

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


def test_a_translation_is_read_in_the_one_language_and_written_in_the_other(load: Load) -> None:
    loaded = replace(load("m2m100"), tokenizer=nllb())
    asked = [Prompt("a", "en-to-sw", "one"), Prompt("a", "zh-to-en", "one")]
    read = encode_prompts(loaded.tokenizer, asked)
    assert loaded.tokenizer.convert_ids_to_tokens([e.ids[0] for e in read]) == ["eng_Latn", "zho_Hans"]
    written = decoder_tokens(loaded, "language", asked, read)
    assert loaded.tokenizer.convert_ids_to_tokens([e.ids[1] for e in written]) == ["swh_Latn", "eng_Latn"]


def m2m100(folder: Path) -> PreTrainedTokenizerBase:
    """Its class reads a SentencePiece model, so a small one is trained."""
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_prefix=str(folder / "spm"), vocab_size=90, minloglevel=2,
        bos_id=0, pad_id=1, eos_id=2, unk_id=3,
    )  # fmt: skip
    pieces = [line.split("\t")[0] for line in (folder / "spm.vocab").read_text("utf-8").splitlines()]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    return M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "spm.model"))


def nllb(**options: object) -> PreTrainedTokenizerBase:
    letters = sorted(set("".join(LINES)) - {" "})
    names = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters[:60]]
    return NllbTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], **options)


UNIGRAMS = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("a", -2.0), ("i", -2.0)]
# Tokenizers that name the language of a text, and how they call those of the prompts.
NAMING: dict[str, Callable[[Path], PreTrainedTokenizerBase]] = {
    "nllb": lambda _: nllb(),
    "nllb, as it was": lambda _: nllb(legacy_behaviour=True, src_lang="fra_Latn"),
    "mbart": lambda _: MBartTokenizer(vocab=UNIGRAMS),
    "mbart-50": lambda _: MBart50Tokenizer(vocab=UNIGRAMS),
    "m2m100": m2m100,
}
CODES = {
    "nllb": {"en": "eng_Latn", "sw": "swh_Latn", "zh": "zho_Hans"},
    "mbart": {"en": "en_XX", "hi": "hi_IN", "zh": "zh_CN"},
    "m2m100": {"en": "en", "sw": "sw", "zh": "zh"},
}


@pytest.mark.parametrize("name", NAMING)
def test_each_prompt_is_read_as_one_of_its_own_language(name: str, tmp_path: Path) -> None:
    made, codes = NAMING[name](tmp_path), CODES[name.split(",")[0].split("-")[0]]
    before = made.src_lang, made("a")["input_ids"]
    prompts = [Prompt("item", language, text) for language in codes for text in LINES[:4]]
    found = encode_prompts(made, prompts)
    assert (made.src_lang, made("a")["input_ids"]) == before
    assert [e.special for e in found] == [e.special for e in encode(made, [p.text for p in prompts])]
    for prompt, tokens in zip(prompts, found, strict=True):
        made.src_lang = codes[prompt.language]  # as transformers would have it
        assert tokens.ids == tuple(made(prompt.text)["input_ids"])


def test_a_source_language_that_the_tokenizer_lacks_is_refused(load: Load) -> None:
    loaded = replace(load("m2m100"), tokenizer=nllb())
    prompts = PromptSet("two", (Prompt("a", "en", "one"), Prompt("a", "tlh", "wa'")))
    for refuse in (
        lambda: check_lengths(loaded, prompts),
        lambda: make_plan(loaded, prompts, sites=["enc.resid.post"], positions=["last"]),
    ):
        with pytest.raises(BabelScopeError, match="no token for the language 'tlh'") as error:
            refuse()
        assert "--languages" in error.value.hint


def test_the_source_language_is_in_the_rows_and_in_the_plan(load: Load, prompts: PromptSet) -> None:
    loaded = replace(load("m2m100"), tokenizer=nllb())
    every = Position("all")
    plan = make_plan(loaded, prompts, sites=["enc.resid.post"], positions=["all"])
    assert plan.source_tokens == ("eng_Latn", "swh_Latn", "zho_Hans")
    for block, token in zip(run_plan(plan, loaded, prompts, list(plan.blocks)), plan.source_tokens, strict=True):
        rows = block.rows["enc.resid.post", every]
        starts = rows.coordinates["token_id"][rows.row_splits[:-1]]
        assert set(loaded.tokenizer.convert_ids_to_tokens(starts.tolist())) == {token}
        assert rows.coordinates["special"][rows.row_splits[:-1]].all()
    # The same words in another language are another input.
    same = PromptSet("same", tuple(Prompt("item", language, LINES[0]) for language in ("en", "sw")))
    plan = make_plan(loaded, same, sites=["enc.resid.post"], positions=["mean"])
    english, swahili = (
        b.rows["enc.resid.post", Position("mean")].values for b in run_plan(plan, loaded, same, list(plan.blocks))
    )
    assert np.abs(english - swahili).max() > 1e-3


@pytest.mark.parametrize("special", [False, True])
def test_other_tokenizers_name_no_language(special: bool, load: Load, prompts: PromptSet) -> None:
    made = tokenizer(special=special)
    made.add_tokens(["__en__", "eng_Latn"], special_tokens=True)  # known, and put beside no text
    assert source_token(made) is None
    assert encode_prompts(made, prompts.prompts) == encode(made, [p.text for p in prompts.prompts])
    loaded = replace(load("m2m100"), tokenizer=made)
    assert make_plan(loaded, prompts, sites=["enc.resid.post"], positions=["last"]).source_tokens == ()
