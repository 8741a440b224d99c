"""Encoder-decoders: two stacks, attention between them, and a decoder that is told what it reads."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from model_zoo import ENCODER_DECODERS, HEADS

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, check_laws, make_plan, run_plan, self_test
from babelscope.hooks.tokens import decoder_tokens, encode, make_batch
from babelscope.schema import DECODER_POLICIES, SITE_KINDS, Block, Position, Prompt, PromptSet

Load = Callable[[str], LoadedModel]
DENSE = [kind for kind in SITE_KINDS if not kind.startswith("moe.") and kind != "attn.crossed"]
SITES = tuple(f"{tag}.{kind}" for tag in ("enc", "dec") for kind in DENSE if (tag, kind[:5]) != ("enc", "cross"))
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32 passes in another batch shape


def captured(loaded: LoadedModel, prompts: PromptSet, *positions: str, **options: object) -> list[Block]:
    sites = options.pop("sites", SITES)
    plan = make_plan(loaded, prompts, sites=sites, positions=positions, answers="none", block_items=3, **options)
    pending = [(language, i) for language in plan.languages for i in range(plan.n_blocks)]
    return list(run_plan(plan, loaded, prompts, pending))


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_every_law_holds_in_both_stacks(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    assert not any(stack.missing for stack in loaded.anatomy.stacks.values())
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.prompts])
    decoder = decoder_tokens(loaded, "copy", prompts.prompts, encoded)
    errors = check_laws(loaded.anatomy, make_batch(loaded, encoded, decoder))
    assert set(errors) == set(SITES)
    # A few float32 roundings (6e-8 each) of one block; mass compares two passes, SDPA and step by step.
    assert max(error for site, error in errors.items() if not site.endswith("mass")) < 1e-6
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_sites_of_both_stacks_equal_a_slow_reference_at_every_token(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    for block in captured(loaded, prompts, "all", decoder="copy")[::3]:
        for row, item in enumerate(block.items):
            for site, expected in reference(name, loaded, prompts.of(block.language)[item].text).items():
                rows = block.rows[site, Position("all")]
                part = rows.values[:, rows.row_splits[row] : rows.row_splits[row + 1]]
                np.testing.assert_allclose(part, expected, err_msg=site, **CLOSE)


def reference(name: str, loaded: LoadedModel, text: str) -> dict[str, np.ndarray]:
    """Sites of one prompt alone, by paths written down by hand, without any of our hooks: (layer, token, unit)."""
    family, model, seen, handles = ENCODER_DECODERS[name], loaded.model, {}, []

    def record(site: str, layer: int, path: str, end: str) -> None:
        part = model.get_submodule(path)
        if end == "in":
            hook = lambda _, args: seen.update({(site, layer): args[0].clone()})  # noqa: E731
            handles.append(part.register_forward_pre_hook(hook))
        else:
            first = lambda out: out[0] if isinstance(out, tuple) else out  # noqa: E731
            handles.append(
                part.register_forward_hook(lambda _, __, out: seen.update({(site, layer): first(out).clone()}))
            )

    for tag, path in family.layers.items():
        for i in range(len(model.get_submodule(path))):
            record(f"{tag}.resid.post", i, f"{path}.{i}", "out")
            for kind, inside in (("attn.out", "attn.heads"), ("cross.out", "cross.heads"), ("mlp.out", "mlp.neurons"),
                                 ("mlp.act", None)):  # fmt: skip
                part = family.parts.get(f"{tag}.{kind}", family.parts.get(kind))
                if (tag, kind) == ("enc", "cross.out"):
                    continue
                record(f"{tag}.{kind}", i, f"{path}.{i}.{part}", "out")
                if inside:
                    record(f"{tag}.{inside}", i, f"{path}.{i}.{part}", "in")
    ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
    start = torch.tensor([[model.config.decoder_start_token_id]])
    try:
        with torch.no_grad():
            model(input_ids=ids, decoder_input_ids=torch.cat([start, ids], 1))
    finally:
        for handle in handles:
            handle.remove()
    sites = {site for site, _ in seen}
    found = {s: torch.stack([seen[s, i] for i in range(len({i for t, i in seen if t == s}))]) for s in sites}
    return {
        site: (x.unflatten(-1, (HEADS, -1)) if site.endswith("heads") else x)[:, 0].numpy() for site, x in found.items()
    }


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_the_self_test_passes_with_every_policy(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    for policy in set(DECODER_POLICIES) - {"language"}:
        plan = make_plan(loaded, prompts, sites=SITES, positions=["last"], decoder=policy)
        assert max(self_test(loaded, prompts, plan).values()) < 1e-5


def test_the_decoder_reads_what_the_policy_says(load: Load, prompts: PromptSet) -> None:
    loaded = load("m2m100")
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.prompts])
    start = loaded.model.config.decoder_start_token_id
    assert decoder_tokens(loaded, "", prompts.prompts, encoded) is None
    assert {e.ids for e in decoder_tokens(loaded, "start", prompts.prompts, encoded)} == {(start,)}
    copies = decoder_tokens(loaded, "copy", prompts.prompts, encoded)
    assert [c.ids for c in copies] == [(start, *e.ids) for e in encoded]
    with pytest.raises(BabelScopeError, match="no token for the language 'en'"):
        decoder_tokens(loaded, "language", prompts.prompts, encoded)


def test_segments_of_a_copied_prompt_are_found_in_the_decoder(load: Load, prompts: PromptSet) -> None:
    loaded = load("m2m100")
    blocks = captured(loaded, prompts, "segment:question", decoder="copy", sites=["dec.resid.post"])
    whole = captured(loaded, prompts, "all", decoder="copy", sites=["dec.resid.post"])
    rows, every = (b[0].rows["dec.resid.post", p] for b, p in
                   ((blocks, Position("segment", "question")), (whole, Position("all"))))  # fmt: skip
    tokens = encode(loaded.tokenizer, [prompts.of("en")[0].text])[0]
    stop = prompts.of("en")[0].segments[0].stop
    inside = [1 + i for i, (a, b) in enumerate(tokens.spans) if a < b and a < stop]
    np.testing.assert_allclose(rows.values[:, 0], every.values[:, inside].mean(1), **CLOSE)


@pytest.mark.parametrize(
    ("sites", "problem"),
    [
        (["resid.post"], "this model has an encoder and a decoder"),
        (["enc.cross.out"], "attend to no encoder"),
        (["enc.resid.post@3"], "not one of the 3 layers"),
    ],
)
def test_a_site_that_these_models_lack_is_refused(
    sites: list[str], problem: str, load: Load, prompts: PromptSet
) -> None:
    with pytest.raises(BabelScopeError, match=problem):
        make_plan(load("bart"), prompts, sites=sites, positions=["last"])
    with pytest.raises(BabelScopeError, match="one stack only"):
        make_plan(load("llama"), prompts, sites=["enc.resid.post"], positions=["last"])


def test_the_decoder_is_not_run_for_sites_of_the_encoder(load: Load, prompts: PromptSet) -> None:
    loaded, ran = load("mt5"), []
    first = loaded.anatomy.stacks["dec"].layers[1].module
    handle = first.register_forward_hook(lambda *_: ran.append(1))
    try:
        captured(loaded, prompts, "last", sites=["enc.resid.post"])
    finally:
        handle.remove()
    assert ran == [1]  # the pass for the laws of the first batch, and no other


def test_an_encoder_decoder_answers_with_its_first_token(load: Load, prompts: PromptSet) -> None:
    loaded = load("mt5")
    plan = make_plan(loaded, prompts, sites=["enc.resid.post@0"], positions=["last"])
    (block,) = run_plan(plan, loaded, PromptSet("one", prompts.prompts, ""), [("en", 0)]) if plan.answers else (None,)
    assert block is not None
    prompt: Prompt = prompts.of("en")[0]
    ids = torch.tensor([loaded.tokenizer(prompt.text)["input_ids"]])
    start = torch.tensor([[loaded.model.config.decoder_start_token_id]])
    with torch.no_grad():
        expected = loaded.model(input_ids=ids, decoder_input_ids=start).logits[0, -1].log_softmax(-1)
    token = loaded.tokenizer("A", add_special_tokens=False)["input_ids"]
    found = block.answers.scores[0, 0]
    assert found >= expected[token[0]].item() - 1e-4
