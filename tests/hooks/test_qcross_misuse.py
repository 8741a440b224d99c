"""What a model with a cross-lingual query must not get wrong silently: shapes, caches, copies, dtypes, adapters."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, StaticCache

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.hooks import load_model
from babelscope.hooks.fingerprints import weights_sha256
from babelscope.hooks.languages import token_languages
from babelscope.hooks.tokens import encode_prompts
from babelscope.qcross.config import QcrossConfig
from babelscope.qcross.forms import FORMS, Joint, attend
from babelscope.qcross.injection import CrossQuery, config_of, cross_parameters, inject
from babelscope.qcross.masks import language_masks
from babelscope.qcross.saving import QcrossRecord, body_state, save_cross
from babelscope.qcross.token_languages import languages_of
from babelscope.schema import Prompt, PromptSet, Segment

FolderOf = Callable[[str], Path]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 17, 18, 19, 20, 21, 22]])
LANGUAGES = torch.tensor([[0] * 5 + [1] * 7])
ONES = torch.ones_like(IDS)


def injected(folder: Path, config: QcrossConfig | None = None, **options: object):
    """A model whose cross-lingual queries have moved away from its own."""
    auto = AutoModelForMaskedLM if "bert" in folder.name else AutoModelForCausalLM
    model = inject(auto.from_pretrained(folder, **options).eval(), config or QcrossConfig())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in cross_parameters(model).values():
            parameter.add_((torch.randn(parameter.shape, generator=generator) * 0.3).to(parameter.dtype))
    return model


def saved(folder: Path, out: Path, config: QcrossConfig | None = None) -> tuple[Path, Path]:
    """Folders of the queries alone, and of the whole model."""
    model = injected(folder, config)
    record = QcrossRecord(base=str(folder), base_sha256=weights_sha256(body_state(model)), config=config_of(model))
    save_cross(model, out / "cross", record)
    model.save_pretrained(out / "whole")
    AutoTokenizer.from_pretrained(folder).save_pretrained(out / "whole")
    return out / "cross", out / "whole"


def in_two_languages() -> PromptSet:
    lines = ("Which is larger?", "Answer with A or B.", "How long is it now?")
    found = []
    for i, line in enumerate(lines):
        text = f"{line} {lines[-1 - i]}"
        spans = Segment("context", 0, len(line), "en"), Segment("question", len(line) + 1, len(text), "sw")
        found.append(Prompt(f"q{i}", "en-sw", text, spans))
    return PromptSet("pairs", tuple(found))


# --- Models that cannot have one.


@pytest.mark.parametrize("name", ["opt", "olmo2", "gpt-oss"])
def test_a_refused_model_is_left_as_it_came(folder_of: FolderOf, name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder_of(name)).train()
    model.eval()
    before = model(input_ids=IDS).logits
    model.train()
    with pytest.raises(BabelScopeError, match=r"two queries|computes something else"):
        inject(model, QcrossConfig())
    assert model.training
    assert torch.equal(model.eval()(input_ids=IDS).logits, before)
    assert config_of(model) is None
    assert not any(isinstance(m, CrossQuery) for m in model.modules())


# --- What is handed over beside the tokens.


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("mask", [ONES, None])
@pytest.mark.parametrize("languages", [LANGUAGES[:, :1], LANGUAGES[:, :8], LANGUAGES.expand(2, -1)])
def test_languages_of_another_shape_are_refused_not_broadcast(
    folder_of: FolderOf, name: str, mask: torch.Tensor | None, languages: torch.Tensor
) -> None:
    with pytest.raises(BabelScopeError, match="give the language of every token"):
        injected(folder_of(name))(input_ids=IDS, attention_mask=mask, language_ids=languages)


def test_padding_is_found_where_the_mask_is_given_by_its_place(folder_of: FolderOf) -> None:
    model = inject(AutoModel.from_pretrained(folder_of("bert")).eval(), QcrossConfig())
    ids = torch.cat([IDS, torch.ones(1, 3, dtype=torch.long)], 1)
    mask = torch.cat([ONES, torch.zeros(1, 3, dtype=torch.long)], 1)
    languages = torch.cat([torch.zeros_like(IDS), torch.full((1, 3), 4)], 1)  # one language, and padding that says 4
    found = model(ids, mask, language_ids=languages)[0]
    assert torch.equal(found, model(input_ids=ids, attention_mask=mask, language_ids=languages)[0])
    torch.testing.assert_close(found[:, :12], model(input_ids=IDS)[0], atol=2e-5, rtol=1e-4)


# The window of Mistral and of two layers of Gemma 3 holds 8 tokens.
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
@pytest.mark.parametrize("form", FORMS)
def test_token_by_token_behind_a_cache_is_one_pass(folder_of: FolderOf, name: str, form: str) -> None:
    model = injected(folder_of(name), QcrossConfig(form=form))
    with torch.no_grad():
        whole = model(input_ids=IDS, attention_mask=ONES, language_ids=LANGUAGES).logits
        cache, found = None, []
        for begin, end in ((0, 7), (7, 9), *((i, i + 1) for i in range(9, 12))):
            out = model(input_ids=IDS[:, begin:end], attention_mask=ONES[:, :end], language_ids=LANGUAGES[:, :end],
                        past_key_values=cache, use_cache=True)  # fmt: skip
            cache = out.past_key_values
            found.append(out.logits)
        torch.testing.assert_close(torch.cat(found, 1), whole, atol=2e-5, rtol=1e-4)
        with pytest.raises(BabelScopeError, match="those of the cache included"):
            model(input_ids=IDS[:, :1], language_ids=LANGUAGES[:, :1], past_key_values=cache)


def test_generating_with_languages_and_caches_of_fixed_length_are_refused(folder_of: FolderOf) -> None:
    model = injected(folder_of("llama"))
    with pytest.raises(ValueError, match="language_ids"):
        model.generate(input_ids=IDS, attention_mask=ONES, language_ids=LANGUAGES, max_new_tokens=2)
    cache = StaticCache(config=model.config, max_cache_len=20)
    with pytest.raises(BabelScopeError, match="cache holds 20 keys"):
        model(input_ids=IDS, attention_mask=ONES, language_ids=LANGUAGES, past_key_values=cache)


def test_a_copy_reads_its_own_state(folder_of: FolderOf) -> None:
    model = injected(folder_of("bert"), QcrossConfig(keep_cross=1, keep_same=1))
    twin = copy.deepcopy(model).train()
    opened = []
    twin.bert.encoder.layer[0].register_forward_pre_hook(
        lambda _, __, kwargs: opened.append(bool(kwargs["cross_masks"].own.all())), with_kwargs=True
    )
    twin(input_ids=IDS, attention_mask=ONES, language_ids=LANGUAGES)
    twin.eval()(input_ids=IDS, attention_mask=ONES, language_ids=LANGUAGES)
    assert opened == [True, False]
    assert not model.training


# --- Dtypes.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_half_precision_rounds_patterns_and_not_scores(form: str, dtype: torch.dtype, limit: float) -> None:
    generator = torch.Generator().manual_seed(0)
    own, cross, key, value = (torch.randn(1, 2, 40, 64, generator=generator) for _ in range(4))
    masks = language_masks(torch.tensor([[0] * 20 + [1] * 20]))
    exact = Joint(*(x.to(dtype).double() for x in (own * 60, cross * 60, key, value)), masks, None, 0.125)
    found = attend(Joint(*(x.to(dtype) for x in exact[:4]), masks, None, 0.125), form)[0]
    # Scores of 60: rounded to bfloat16 they moved outputs by 0.3, to float16 by 0.04.
    assert (found.double() - attend(exact, "doubled")[0]).abs().max() < limit
    over = attend(Joint(*(x.half() * s for x, s in zip((own, cross, key, value), (99, 99, 99, 1), strict=True)),
                        masks, None, 0.125), form)[0]  # fmt: skip
    assert over.isfinite().all()  # products beyond 65,504


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_every_dtype_are_injected(folder_of: FolderOf, dtype: torch.dtype) -> None:
    model = injected(folder_of("llama"), dtype=dtype)
    out = model(input_ids=IDS, attention_mask=ONES, language_ids=LANGUAGES).logits
    assert out.dtype == dtype
    assert out.isfinite().all()


def test_queries_go_onto_their_base_in_another_dtype_and_onto_no_other_base(
    folder_of: FolderOf, tmp_path: Path
) -> None:
    base = folder_of("bert")
    cross, _ = saved(base, tmp_path)
    loaded = load_model(base, adapter=cross, dtype="bfloat16", device="cpu")
    assert any("cannot be checked" in line for line in loaded.notes)
    assert load_model(base, adapter=cross, dtype="float32", device="cpu").notes == ()
    other = AutoModelForMaskedLM.from_pretrained(base)
    with torch.no_grad():
        other.bert.encoder.layer[0].output.dense.bias += 1
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "other")
    with pytest.raises(BabelScopeError, match="whose weights are others"):
        load_model(tmp_path / "other", adapter=cross, device="cpu")


# --- Adapters.


def test_queries_bring_their_configuration_to_a_model_that_has_some(folder_of: FolderOf, tmp_path: Path) -> None:
    _, whole = saved(folder_of("bert"), tmp_path / "a")
    cross, _ = saved(folder_of("bert"), tmp_path / "b", QcrossConfig(double_count=False))
    config = config_of(load_model(whole, adapter=cross, device="cpu").model)
    assert config is not None
    assert not config.double_count


def test_an_adapter_of_the_query_is_refused_and_merged_into_the_query_alone(
    folder_of: FolderOf, tmp_path: Path
) -> None:
    base = folder_of("llama")
    _, whole = saved(base, tmp_path)
    for name, target in (("q", "q_proj"), ("v", "v_proj")):
        lora = peft.LoraConfig(target_modules=[target], r=2, init_lora_weights=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT asks for what transformers has renamed
            peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(tmp_path / name)
    with pytest.raises(BabelScopeError, match="changes the query of"):
        load_model(whole, adapter=tmp_path / "q", device="cpu")
    plain = dict(load_model(whole, device="cpu").model.named_parameters())
    merged = dict(load_model(whole, adapter=tmp_path / "q", merge_adapter=True, device="cpu").model.named_parameters())
    moved = {name for name, parameter in merged.items() if not torch.equal(parameter, plain[name])}
    assert moved == {f"model.layers.{i}.self_attn.q_proj.weight" for i in range(3)}
    beside = load_model(whole, adapter=tmp_path / "v", device="cpu").model
    with torch.no_grad():
        found = [m(input_ids=IDS, attention_mask=ONES, language_ids=LANGUAGES).logits for m in (
            beside, load_model(whole, adapter=tmp_path / "v", merge_adapter=True, device="cpu").model)]  # fmt: skip
    torch.testing.assert_close(*found, atol=2e-5, rtol=1e-4)


# --- What is captured, and which language a token has.


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_every_form_shows_the_same_attention(folder_of: FolderOf, tmp_path: Path, name: str) -> None:
    sites = ("attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.mass", "attn.crossed")
    stores = []
    for form in FORMS:
        _, whole = saved(folder_of(name), tmp_path / form, QcrossConfig(form=form))
        stores.append(bs.capture(
            tmp_path / f"{form}.acts", model=str(whole), prompts=in_two_languages(), sites=sites, device="cpu"
        ))  # fmt: skip
    for site in sites:
        first, *others = (store.select(f"{site}@2").numpy() for store in stores)
        for found in others:
            np.testing.assert_allclose(found, first, atol=2e-5, rtol=1e-4)


def test_structured_dropout_alone_shows_its_attention_in_every_form(folder_of: FolderOf, tmp_path: Path) -> None:
    found = []
    for form in FORMS:
        _, whole = saved(folder_of("bert"), tmp_path / form, QcrossConfig(form=form, cross_query=False))
        store = bs.capture(tmp_path / f"{form}.acts", model=str(whole), prompts=in_two_languages(),
                           sites=("attn.q", "attn.pattern", "attn.mass"), device="cpu")  # fmt: skip
        found.append(store.select("attn.pattern@1").numpy())
    for pattern in found[1:]:
        np.testing.assert_allclose(pattern, found[0], atol=2e-5, equal_nan=True)


def test_a_word_that_begins_with_a_space_has_the_language_of_the_word() -> None:
    text = "One two. Un deux."
    prompt = Prompt("a", "en-fr", text, (Segment("context", 0, 8, "en"), Segment("question", 9, 17, "fr")))
    spans = [(0, 0), (0, 3), (3, 7), (7, 8), (8, 11), (11, 16), (16, 17), (0, 0)]
    assert languages_of(prompt, spans) == ["en"] * 4 + ["fr"] * 4
    assert languages_of(prompt, [(0, 7), (7, 11), (11, 17)]) == ["en", "fr", "fr"]  # astride: the later one
    assert languages_of(prompt, [(0, 9), (9, 17)]) == ["en", "fr"]  # a space behind belongs to nobody


def test_a_tokenizer_without_places_cannot_tell_two_languages_apart(folder_of: FolderOf, tmp_path: Path) -> None:
    loaded = load_model(saved(folder_of("bert"), tmp_path)[1], device="cpu")
    prompts = in_two_languages().prompts
    blind = [replace(x, spans=None) for x in encode_prompts(loaded.tokenizer, prompts)]
    with pytest.raises(BabelScopeError, match="which characters its tokens cover"):
        token_languages(loaded.model, prompts, blind, loaded.device)
    english = [replace(p, segments=p.segments[:1]) for p in prompts]
    languages = token_languages(loaded.model, english, blind, loaded.device)
    assert languages is not None


def test_checkpointing_of_a_decoder_repeats_the_same_pass(folder_of: FolderOf) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = injected(folder_of("llama"), QcrossConfig(keep_cross=0.5, keep_same=0.5)).train()
        if checkpointed:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)
        out = model(input_ids=IDS, attention_mask=ONES, language_ids=LANGUAGES, use_cache=False).logits
        out.square().mean().backward()
        gradients.append([p.grad for p in cross_parameters(model).values()])
    for plain, repeated in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, repeated)
        assert plain.abs().sum() > 0
