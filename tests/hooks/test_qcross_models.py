"""The cross-lingual query in models of six families: nothing changes that should not, and what is saved comes back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from babelscope.errors import BabelScopeError
from babelscope.hooks.fingerprints import weights_sha256
from babelscope.qcross.config import QcrossConfig
from babelscope.qcross.injection import CrossQuery, config_of, cross_parameters, inject
from babelscope.qcross.saving import QcrossRecord, body_state, is_qcross, load_cross, save_cross

ENCODERS = ("bert", "xlm-r")
FAMILIES = (*ENCODERS, "llama", "mistral", "qwen2", "qwen3", "gemma3")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
LANGUAGES = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]])


def fresh(folder: Path, name: str) -> torch.nn.Module:
    return (AutoModelForMaskedLM if name in ENCODERS else AutoModelForCausalLM).from_pretrained(folder).eval()


def logits(model: torch.nn.Module, ids: torch.Tensor = IDS, mask: torch.Tensor | None = None, **more: object):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids) if mask is None else mask, **more).logits


def moved(model: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in cross_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_languages_and_in_one_of_them_nothing_changes(folder_of: Callable[[str], Path], name: str) -> None:
    plain = fresh(folder_of(name), name)
    model = inject(fresh(folder_of(name), name), QcrossConfig())
    n_layers = model.config.get_text_config().num_hidden_layers
    assert sum(isinstance(m, CrossQuery) for m in model.modules()) == n_layers
    moved(model)  # whatever Qcross has become
    expected = logits(plain)
    torch.testing.assert_close(logits(model), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(logits(model, language_ids=torch.ones_like(IDS)), expected, atol=2e-5, rtol=1e-4)
    mixed = logits(model, language_ids=torch.stack([torch.zeros(6, dtype=torch.long), LANGUAGES[1]]))
    torch.testing.assert_close(mixed[0], expected[0], atol=2e-5, rtol=1e-4)  # a bypass for this example alone
    assert (mixed[1] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_on_either_side_changes_nothing(folder_of: Callable[[str], Path], name: str) -> None:
    model = inject(fresh(folder_of(name), name), QcrossConfig())
    moved(model)
    alone = logits(model, IDS[:1], language_ids=LANGUAGES[:1])
    pad = torch.full((1, 2), model.config.get_text_config().pad_token_id or 0)
    nothing, ones = torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 6, dtype=torch.long)
    # Languages of padding do not count, whatever they say.
    right = logits(model, torch.cat([IDS[:1], pad], 1), torch.cat([ones, nothing], 1),
                   language_ids=torch.cat([LANGUAGES[:1], nothing + 4], 1))  # fmt: skip
    torch.testing.assert_close(right[:, :6], alone, atol=2e-5, rtol=1e-4)
    if name not in ENCODERS:
        positions = torch.tensor([[0, 0, 0, 1, 2, 3, 4, 5]])
        left = logits(model, torch.cat([pad, IDS[:1]], 1), torch.cat([nothing, ones], 1), position_ids=positions,
                      language_ids=torch.cat([nothing + 4, LANGUAGES[:1]], 1))  # fmt: skip
        torch.testing.assert_close(left[:, 2:], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["logaddexp", "doubled", "partition"])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_forms_agree_in_a_model_gradients_included(folder_of: Callable[[str], Path], name: str, form: str) -> None:
    found = []
    for chosen in ("logaddexp", form):
        model = inject(fresh(folder_of(name), name), QcrossConfig(form=chosen))
        moved(model)
        output = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), language_ids=LANGUAGES).logits
        output.square().mean().backward()
        found.append((output.detach(), {n: p.grad for n, p in cross_parameters(model).items()}))
    torch.testing.assert_close(found[0][0], found[1][0], atol=5e-5, rtol=1e-4)
    for n, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][n], gradient, atol=5e-5, rtol=1e-3)
        assert gradient.abs().sum() > 0, n


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_comes_back(folder_of: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    base = fresh(folder_of(name), name)
    sha256 = weights_sha256(body_state(base))
    model = inject(base, QcrossConfig(keep_cross=0.3))
    assert weights_sha256(body_state(model)) == sha256
    moved(model)
    save_cross(
        model, tmp_path / "cross", QcrossRecord(base=name, base_sha256=sha256, config=QcrossConfig(keep_cross=0.3))
    )
    assert is_qcross(tmp_path / "cross")
    again = fresh(folder_of(name), name)
    record = load_cross(again, tmp_path / "cross", base_sha256=sha256)
    assert record.config.keep_cross == 0.3
    torch.testing.assert_close(
        logits(again, language_ids=LANGUAGES), logits(model, language_ids=LANGUAGES), atol=0, rtol=0
    )


def test_an_encoder_with_a_classifier_takes_queries_trained_below_a_language_model(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    model = inject(fresh(folder_of("bert"), "bert"), QcrossConfig())
    moved(model)
    save_cross(model, tmp_path / "cross", QcrossRecord(base="bert", config=QcrossConfig()))
    classifier = AutoModelForSequenceClassification.from_pretrained(folder_of("bert"))
    load_cross(classifier, tmp_path / "cross")
    names = {n.removeprefix("bert."): p for n, p in cross_parameters(model).items()}
    for n, parameter in cross_parameters(classifier).items():
        assert torch.equal(parameter, names[n.removeprefix("bert.")])


def test_every_layer_meets_the_same_draw(folder_of: Callable[[str], Path]) -> None:
    model = inject(fresh(folder_of("bert"), "bert"), QcrossConfig(keep_cross=0.5, keep_same=0.5)).train()
    seen = []
    for layer in model.bert.encoder.layer:
        layer.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["cross_masks"]), with_kwargs=True)
    torch.manual_seed(0)
    model(input_ids=IDS, attention_mask=torch.ones_like(IDS), language_ids=LANGUAGES)
    assert len(seen) == 3
    assert all(masks is seen[0] for masks in seen)
    first = seen[0].own.clone()
    model(input_ids=IDS, attention_mask=torch.ones_like(IDS), language_ids=LANGUAGES)
    assert (seen[-1].own != first).any()  # and every pass a new one


def test_gradient_checkpointing_repeats_the_same_pass(folder_of: Callable[[str], Path]) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = inject(fresh(folder_of("bert"), "bert"), QcrossConfig(keep_cross=0.5, keep_same=0.5)).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.config.attention_probs_dropout_prob = 0.0
        if checkpointed:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)
        out = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), language_ids=LANGUAGES).logits
        out.square().mean().backward()
        gradients.append([p.grad for p in cross_parameters(model).values()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_structured_dropout_alone_masks_the_query_of_the_model(folder_of: Callable[[str], Path]) -> None:
    model = inject(fresh(folder_of("bert"), "bert"), QcrossConfig(cross_query=False, keep_cross_eval=1.0))
    plain = logits(fresh(folder_of("bert"), "bert"))
    assert cross_parameters(model) == {}
    torch.testing.assert_close(logits(model, language_ids=LANGUAGES), plain, atol=2e-5, rtol=1e-4)
    closed = inject(fresh(folder_of("bert"), "bert"), QcrossConfig(cross_query=False, keep_cross_eval=0.0))
    assert (logits(closed, language_ids=LANGUAGES) - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gpt2", "no query projection of its own"),
        ("bloom", "no query projection of its own"),
        ("gpt-neox", "no query projection of its own"),
        ("phi3", "no query projection of its own"),
        ("gemma2", "caps its attention scores"),
        ("xglm", "computes it by itself"),
    ],
)
def test_what_cannot_have_one_is_refused(folder_of: Callable[[str], Path], name: str, problem: str) -> None:
    with pytest.raises(BabelScopeError, match=problem):
        inject(fresh(folder_of(name), name), QcrossConfig())


def test_what_does_not_belong_together_is_refused(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    model = inject(fresh(folder_of("bert"), "bert"), QcrossConfig())
    with pytest.raises(BabelScopeError, match="already"):
        inject(model, QcrossConfig())
    save_cross(model, tmp_path / "cross", QcrossRecord(base="bert", base_sha256="a" * 64, config=QcrossConfig()))
    with pytest.raises(BabelScopeError, match="whose weights are others"):
        load_cross(fresh(folder_of("bert"), "bert"), tmp_path / "cross", base_sha256="b" * 64)
    with pytest.raises(BabelScopeError, match="does not fit LlamaForCausalLM"):
        load_cross(fresh(folder_of("llama"), "llama"), tmp_path / "cross")
    with pytest.raises(BabelScopeError, match=r"holds no qcross\.json"):
        load_cross(fresh(folder_of("bert"), "bert"), tmp_path)
    record = json.loads((tmp_path / "cross/qcross.json").read_text())
    (tmp_path / "cross/qcross.json").write_text(json.dumps({**record, "config": {"keep_crss": 1}}))
    with pytest.raises(BabelScopeError, match=r"qcross\.json: config\.keep_crss"):
        load_cross(fresh(folder_of("bert"), "bert"), tmp_path / "cross")
    assert config_of(fresh(folder_of("bert"), "bert")) is None
