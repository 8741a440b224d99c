"""Models with a cross-lingual query, captured with the languages of their prompts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.hooks import load_model
from babelscope.hooks.fingerprints import weights_sha256
from babelscope.hooks.languages import token_languages
from babelscope.hooks.tokens import encode_prompts
from babelscope.qcross.config import QcrossConfig
from babelscope.qcross.injection import cross_parameters, inject
from babelscope.qcross.saving import QcrossRecord, body_state, save_cross
from babelscope.schema import Prompt, PromptSet, Segment


def prompts_in(*pairs: str) -> PromptSet:
    """Three items; the first sentence of `a-b` is in a, the second in b."""
    lines = ("Which is larger?", "Answer with A or B.", "How long is it now?")
    found = []
    for pair in pairs:
        first, _, second = pair.partition("-")
        for i, line in enumerate(lines):
            text = f"{line} {lines[-1 - i]}"
            cut = len(line)
            spans = (Segment("context", 0, cut, first), Segment("question", cut + 1, len(text), second or first))
            found.append(Prompt(f"q{i}", pair, text, spans))
    return PromptSet("pairs", tuple(found))


@pytest.fixture(scope="module", params=["bert", "llama"])
def crossed(request, folder_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory):
    """Name, base folder, folder of the queries alone, and folder of a whole model with them."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    auto = AutoModelForMaskedLM if name == "bert" else AutoModelForCausalLM
    base = auto.from_pretrained(folder_of(name)).eval()
    sha256 = weights_sha256(body_state(base))
    model = inject(base, QcrossConfig())
    with torch.no_grad():
        for parameter in cross_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    save_cross(
        model, folder / "cross", QcrossRecord(base=str(folder_of(name)), base_sha256=sha256, config=QcrossConfig())
    )
    model.save_pretrained(folder / "whole")
    AutoTokenizer.from_pretrained(folder_of(name)).save_pretrained(folder / "whole")
    return name, folder_of(name), folder / "cross", folder / "whole", model


SITES = ("resid.post", "attn.heads", "attn.scores", "attn.pattern", "attn.mass", "attn.crossed")


def test_every_way_to_name_it_gives_the_same_rows(crossed, tmp_path: Path) -> None:
    _, base, cross, whole, _ = crossed
    prompts = prompts_in("en-sw", "en")
    ways = {"beside": {"model": str(base), "adapter": str(cross)}, "alone": {"model": str(cross)},
            "whole": {"model": str(whole)}}  # fmt: skip
    stores = {
        name: bs.capture(tmp_path / f"{name}.acts", prompts=prompts, sites=SITES, positions=["mean"], **way)
        for name, way in ways.items()
    }
    for site in SITES:
        rows = {name: store.select(f"{site}@1").numpy() for name, store in stores.items()}
        for found in rows.values():
            np.testing.assert_array_equal(found, rows["whole"])
    plain = bs.capture(tmp_path / "plain.acts", model=str(base), prompts=prompts, sites=["resid.post"])
    last = {
        g: [
            bs.capture(tmp_path / f"{g}{k}.acts", model=m, prompts=prompts_in(g), sites=["resid.post"])
            .select("resid.post@2").numpy()
            for k, m in enumerate((str(whole), str(base)))
        ]
        for g in ("en-sw", "en")
    }  # fmt: skip
    np.testing.assert_allclose(*last["en"], atol=2e-5)  # one language: the model as it was
    assert np.abs(np.subtract(*last["en-sw"])).max() > 1e-3
    assert plain.plan.model.weights_sha256 != stores["whole"].plan.model.weights_sha256
    assert stores["beside"].plan.model.weights_sha256 == plain.plan.model.weights_sha256
    assert stores["beside"].plan.model.adapter_sha256


def test_pattern_and_share_are_those_of_the_joint_attention(crossed, tmp_path: Path) -> None:
    _, _, _, whole, model = crossed
    prompts = prompts_in("en-sw")
    store = bs.capture(tmp_path / "s.acts", model=str(whole), prompts=prompts, sites=SITES, positions=["last"])
    loaded = load_model(whole, device="cpu")
    encoded = encode_prompts(loaded.tokenizer, prompts.prompts)
    languages = token_languages(loaded.model, prompts.prompts, encoded, loaded.device)
    for i, tokens in enumerate(encoded):
        n = len(tokens)
        ids = torch.tensor([tokens.ids])
        with torch.no_grad():
            out = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), language_ids=languages[i : i + 1, :n],
                output_attentions=True,
            )  # fmt: skip
        pattern = store.select("attn.pattern@1", items=f"q{i}").numpy()[..., :n].squeeze()
        np.testing.assert_allclose(pattern, out.attentions[1][0, :, -1].numpy(), atol=1e-5)
        np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-5)
        share = store.select("attn.crossed@1", items=f"q{i}").numpy().squeeze()
        assert ((share > 0) & (share < 1)).all()
        # From another language comes all that the query may not see by itself; the bridge comes from both.
        other = (languages[i, :n] != languages[i, n - 1]).numpy()
        other[0] = False
        assert (share >= pattern[:, other].sum(-1) - 1e-5).all()
        assert (share <= pattern[:, other].sum(-1) + pattern[:, 0] + 1e-5).all()
    mono = bs.capture(tmp_path / "m.acts", model=str(whole), prompts=prompts_in("en"), sites=["attn.crossed"])
    assert (mono.select("attn.crossed").numpy() == 0).all()


def test_tokens_have_the_language_of_their_segment_and_what_is_between_that_of_the_one_before(
    crossed, folder_of: Callable[[str], Path]
) -> None:
    whole = crossed[3]
    loaded = load_model(whole, device="cpu")
    (prompt,) = prompts_in("en-sw").prompts[:1]
    (encoded,) = encode_prompts(loaded.tokenizer, [prompt])
    (ids,) = token_languages(loaded.model, [prompt], [encoded], loaded.device).tolist()
    context, question = prompt.segments
    for (begin, end), language in zip(encoded.spans, ids, strict=True):
        if begin < end and begin >= question.start:
            assert language == ids[-1]
        elif end <= context.stop and begin < end:
            assert language == ids[0]
    assert ids[0] != ids[-1]
    assert sorted(ids) == ids or sorted(ids, reverse=True) == ids  # one border, wherever special tokens stand
    plain = load_model(crossed[1], device="cpu")
    assert token_languages(plain.model, [prompt], [encoded], plain.device) is None


def test_what_no_longer_means_what_it_says_is_refused(crossed, tmp_path: Path) -> None:
    _, base, cross, whole, _ = crossed
    prompts = prompts_in("en-sw")

    def refusal(**options: object) -> str:
        with pytest.raises(BabelScopeError) as caught:
            bs.capture(tmp_path / "x.acts", prompts=prompts, **options)
        return str(caught.value)

    assert "two queries" in refusal(model=str(whole), sites=["attn.q"])
    assert "no other hands the languages on" in refusal(model=str(whole), backend="nnsight")
    assert "no other hands the languages on" in refusal(model=str(whole), backend="transformer-lens")
    assert "has no cross-lingual query" in refusal(model=str(base), sites=["attn.crossed"])
    assert "whole weights on one device" in refusal(model=str(base), adapter=str(cross), merge_adapter=True)
    assert not (tmp_path / "x.acts").exists()
