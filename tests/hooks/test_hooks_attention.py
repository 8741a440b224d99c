"""Inside attention: queries, keys, values, scores, patterns, and what is summed up without a pattern."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import model_zoo
import numpy as np
import pytest
import torch
import transformers
from model_zoo import BYPASSING, DECODERS, ENCODER_DECODERS, FAMILIES, HEADS, INSIDE, LINES

from babelscope.errors import BabelScopeError
from babelscope.hooks import (
    LoadedModel,
    check_laws,
    interior_laws,
    load_model,
    make_plan,
    place,
    run_plan,
    self_test,
)
from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.backends.torch import backend
from babelscope.hooks.interior import Watch
from babelscope.hooks.mass import DotProducts, Reduction
from babelscope.hooks.tap import tap_of
from babelscope.hooks.tokens import Batch, decoder_tokens, encode, make_batch
from babelscope.schema import Block, CapturePlan, Position, Prompt, PromptSet, Segment

Load = Callable[[str], LoadedModel]
ALL = (*FAMILIES, *ENCODER_DECODERS)
INTERFACE = [name for name in ALL if name not in BYPASSING]
PARTS = ("q", "k", "v", "scores", "pattern", "mass")
LAST, EVERY, QUESTION = Position("last"), Position("all"), Position("segment", "question")

# Of entropy (up to 4 nats), first token, distance (up to 40 tokens) and the masses on three segments. float32: another
# kernel, 1e-6 of the largest. bfloat16: patterns and what the kernel returns keep eight bits (4e-3), and by the third
# layer the residual streams of the two passes are apart by several times as much; more in T5, whose scores are not
# scaled, so that their roundings are larger. A wrong column is off by 1.
LIMITS = {
    "float32": np.array([2e-5, 2e-5, 1e-4, 2e-5, 2e-5, 2e-5]),
    "bfloat16": np.array([0.12, 0.04, 0.4, 0.04, 0.04, 0.06]),
}


@pytest.fixture(scope="session")
def asked() -> PromptSet:
    """Prompts with three segments: two that touch, one of them inside a word, and one that half of the items lack."""
    found = []
    for language, line in zip(("en", "sw"), ("Which of these is larger?", "Ni ipi kubwa zaidi? Jibu."), strict=True):
        for item in range(4):
            question = line[: 7 + 5 * item]
            text = f"Read. {question} A. x B. y"
            cut = 6 + len(question) // 2
            spans = [Segment("cue", 6, cut, language), Segment("question", 6, 6 + len(question), language)]
            if item % 2:
                spans.append(Segment("options", len(text) - 9, len(text), language))
            found.append(Prompt(f"item-{item}", language, text, tuple(spans)))
    return PromptSet("asked", tuple(found))


def batch_of(loaded: LoadedModel, prompts: PromptSet) -> Batch:
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.prompts])
    policy = "copy" if loaded.ref.n_encoder_layers else ""
    return make_batch(loaded, encoded, decoder_tokens(loaded, policy, prompts.prompts, encoded))


def plan_of(loaded: LoadedModel, prompts: PromptSet, *parts: str, positions: tuple[Position, ...] = (LAST,), **more):
    stacks = {"enc": ("attn",), "dec": ("attn", "cross")} if loaded.ref.n_encoder_layers else {"": ("attn",)}
    sites = [f"{tag}.{f}.{part}".lstrip(".") for tag, families in stacks.items() for f in families for part in parts]
    options = {"answers": "none", "block_items": 8, "decoder": "copy", **more}
    return make_plan(loaded, prompts, sites=sites, positions=[str(p) for p in positions], **options)


def captured(plan: CapturePlan, loaded: LoadedModel, prompts: PromptSet) -> list[Block]:
    return list(run_plan(plan, loaded, prompts, [(g, i) for g in plan.languages for i in range(plan.n_blocks)]))


def rows_of(block: Block, site: str, position: Position) -> np.ndarray:
    return block.rows[site, position].values.astype(np.float64)


def by_hand(pattern: np.ndarray, prompt: Prompt, spans: list[tuple[int, int]], *, same: bool) -> np.ndarray:
    """Summaries of one prompt from its pattern (query, head, key), with segments cue, options and question."""
    p = pattern.astype(np.float64)
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1)
    away = np.arange(len(p))[:, None, None] - np.arange(p.shape[-1])
    columns = [entropy, p[..., 0], (p * away).sum(-1) if same else np.full_like(entropy, np.nan)]
    for name in ("cue", "options", "question"):
        own = [(s.start, s.stop) for s in prompt.segments if s.name == name]
        inside = [a < b and any(a < stop and start < b for start, stop in own) for a, b in spans]
        columns.append(p[..., inside].sum(-1) if any(inside) else np.full_like(entropy, np.nan))
    return np.stack(columns, -1)


def with_even_by_hand(pattern: np.ndarray, prompt: Prompt, spans: list[tuple[int, int]], *, same: bool) -> np.ndarray:
    """The summaries, and those of a head that gives every key which some head sees the same weight."""
    even = np.zeros_like(pattern, np.float64)
    for query, rows in enumerate(pattern):
        seen = [key for key in range(pattern.shape[-1]) if any(row[key] > 0 for row in rows)]
        even[query][:, seen] = 1 / len(seen)
    return np.concatenate([by_hand(p, prompt, spans, same=same) for p in (pattern, even)], -1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mass_is_the_same_reduction_of_the_pattern(
    name: str, dtype: str, folder_of: Callable[[str], Path], asked: PromptSet
) -> None:
    loaded = load_model(folder_of(name), dtype=dtype, device="cpu")
    found = captured(plan_of(loaded, asked, "mass", positions=(EVERY, LAST), dtype="float32"), loaded, asked)
    patterns = captured(plan_of(loaded, asked, "pattern", positions=(EVERY,), dtype="float32"), loaded, asked)
    for block, reference in zip(found, patterns, strict=True):
        for site in {site for site, _ in block.rows}:
            rows, other = block.rows[site, EVERY], reference.rows[site.replace("mass", "pattern"), EVERY]
            for row, item in enumerate(block.items):
                prompt = asked.of(block.language)[item]
                spans = list(encode(loaded.tokenizer, [prompt.text])[0].spans)
                if site == "dec.attn.mass":
                    spans = [(0, 0), *spans]
                own = slice(*rows.row_splits[row : row + 2])
                for layer, pattern in enumerate(other.values[:, own]):
                    expected = with_even_by_hand(pattern[..., : len(spans)], prompt, spans, same="cross" not in site)
                    assert (np.isnan(rows.values[layer, own]) == np.isnan(expected)).all()
                    errors = np.nan_to_num(np.abs(rows.values[layer, own] - expected)).max((0, 1))
                    assert (errors <= np.tile(LIMITS[dtype], 2) * (3 if name == "mt5" else 1)).all(), (
                        site,
                        layer,
                        errors,
                    )


@pytest.mark.parametrize("name", ALL)
def test_the_last_row_alone_equals_the_last_of_all_rows(name: str, load: Load, asked: PromptSet) -> None:
    loaded = load(name)
    alone = captured(plan_of(loaded, asked, "mass"), loaded, asked)
    among = captured(plan_of(loaded, asked, "mass", positions=(LAST, QUESTION)), loaded, asked)
    for one, other in zip(alone, among, strict=True):
        for site, _ in one.rows:
            # Two kernels in float32; distances reach 40 tokens.
            np.testing.assert_allclose(rows_of(one, site, LAST), rows_of(other, site, LAST), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "bert", "falcon", "qwen3", "m2m100"])
def test_mass_does_not_leave_sdpa(name: str, load: Load, asked: PromptSet, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, sites = load(name), []

    def refuse(*_: object) -> None:
        raise AssertionError("a pattern was made")

    plan = plan_of(loaded, asked, "mass", positions=(EVERY,))
    monkeypatch.setattr(Reduction, "of_pattern", refuse)
    monkeypatch.setattr(Reduction, "_reduced", refuse)
    monkeypatch.setattr(torch.nn.functional, "softmax", refuse)
    run = backend.open(loaded, plan)
    run(batch_of(loaded, asked), lambda site, _: sites.append(site), logits=False, laws=False)
    assert sorted(sites) == sorted(plan.sites)


@pytest.mark.parametrize("name", ALL)
def test_capturing_mass_changes_no_other_row(name: str, load: Load, asked: PromptSet) -> None:
    loaded = load(name)
    stack = "dec.resid.post" if loaded.ref.n_encoder_layers else "resid.post"
    plain = make_plan(loaded, asked, sites=[stack], positions=["last"], answers="none", decoder="copy", levers=())
    mass = plan_of(loaded, asked, "mass")
    both = replace(mass, sites=(*mass.sites, *plain.sites))
    for a, b in zip(captured(plain, loaded, asked), captured(both, loaded, asked), strict=True):
        np.testing.assert_array_equal(a.rows[stack, LAST].values, b.rows[stack, LAST].values)


@pytest.mark.parametrize("name", INTERFACE)
def test_queries_keys_and_values_give_the_heads(name: str, load: Load, asked: PromptSet) -> None:
    loaded = load(name)
    block = captured(plan_of(loaded, asked, "q", "k", "v", "scores", "pattern", positions=(EVERY,)), loaded, asked)[0]
    heads = captured(plan_of(loaded, asked, "heads", positions=(EVERY,)), loaded, asked)[0]
    for site, position in heads.rows:
        tensors = {part: block.rows[site.replace("heads", part), position] for part in PARTS[:-1]}
        rows = slice(*tensors["q"].row_splits[1:3])
        keys = slice(*tensors["k"].row_splits[1:3])
        n_keys = keys.stop - keys.start
        for layer, expected in enumerate(heads.rows[site, position].values[:, rows]):
            q, k, v = (tensors[x].values[layer, rows if x == "q" else keys] for x in "qkv")
            scores, pattern = (tensors[x].values[layer, rows] for x in ("scores", "pattern"))
            assert q.shape[1] == HEADS
            assert k.shape == v.shape
            assert HEADS % k.shape[1] == 0
            assert (pattern[..., n_keys:] == 0).all()
            assert np.isnan(scores[..., n_keys:]).all()
            pattern, scores = pattern[..., :n_keys], scores[..., :n_keys]
            np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-5)
            weights = np.exp(np.nan_to_num(scores, nan=-np.inf) - np.nanmax(scores, -1, keepdims=True))
            np.testing.assert_allclose(weights / weights.sum(-1, keepdims=True), pattern, atol=1e-5)
            repeated = v.repeat(HEADS // v.shape[1], axis=1)
            np.testing.assert_allclose(np.einsum("qhk,khd->qhd", pattern, repeated), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "gemma2", "phi3", "gpt-neox"])
def test_scores_are_products_of_queries_and_keys(name: str, load: Load, asked: PromptSet) -> None:
    loaded = load(name)
    block = captured(plan_of(loaded, asked, "q", "k", "scores", positions=(EVERY,)), loaded, asked)[0]
    q, k, scores = (block.rows[f"attn.{x}", EVERY] for x in ("q", "k", "scores"))
    own = slice(*q.row_splits[1:3])
    repeated = k.values[1, own].repeat(HEADS // k.values.shape[2], axis=1)
    config = loaded.model.config
    scale = getattr(config, "query_pre_attn_scalar", None) or q.values.shape[-1]
    expected = np.einsum("qhd,khd->qhk", q.values[1, own], repeated) / np.sqrt(scale)
    cap = getattr(config, "attn_logit_softcapping", None)
    expected = cap * np.tanh(expected / cap) if cap else expected
    found = scores.values[1, own][..., : own.stop - own.start]
    at = np.arange(len(found))
    away = at[:, None] - at
    window = getattr(config, "sliding_window", None) if name == "mistral" else None
    hidden = (away < 0) | (away >= (window or 10**6))
    assert (np.isnan(found) == np.broadcast_to(hidden[:, None], found.shape)).all()
    np.testing.assert_allclose(found, np.where(hidden[:, None], np.nan, expected), rtol=1e-4, atol=2e-5)


def test_the_pattern_is_the_one_that_transformers_gives(load: Load, asked: PromptSet) -> None:
    loaded = load("qwen2")
    block = captured(plan_of(loaded, asked, "pattern", positions=(EVERY,)), loaded, asked)[0]
    rows = block.rows["attn.pattern", EVERY]
    ids = torch.tensor([loaded.tokenizer(asked.of("en")[2].text)["input_ids"]])
    loaded.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            expected = torch.cat(loaded.model(input_ids=ids, output_attentions=True).attentions)
    finally:
        loaded.model.set_attn_implementation("sdpa")
    found = rows.values[:, slice(*rows.row_splits[2:4]), :, : ids.shape[1]]
    np.testing.assert_allclose(found, expected.transpose(1, 2).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", BYPASSING)
@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_what_a_model_file_keeps_to_itself_is_refused(name: str, part: str, load: Load, asked: PromptSet) -> None:
    with pytest.raises(BabelScopeError, match=rf"attn.{part}@0: not reachable, because the model file of"):
        plan_of(load(name), asked, part)


@pytest.mark.parametrize("name", ALL)
def test_nothing_stays_behind(name: str, load: Load, asked: PromptSet) -> None:
    loaded = load(name)
    before = loaded.model.config._attn_implementation, wrapped(loaded)
    captured(plan_of(loaded, asked, "scores", "mass"), loaded, asked)
    assert (loaded.model.config._attn_implementation, wrapped(loaded)) == before


def wrapped(loaded: LoadedModel) -> list[str]:
    """Modules with a `forward` of their own; nnsight leaves some in models that other tests have traced."""
    return [path for path, module in loaded.model.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("name", ["llama", "bert", "bloom", "mt5"])
def test_the_self_test_passes_with_every_reachable_site(name: str, load: Load, asked: PromptSet) -> None:
    loaded = load(name)
    parts = PARTS[3:] if name in BYPASSING else PARTS
    found = self_test(loaded, asked, plan_of(loaded, asked, *parts, positions=(EVERY, QUESTION)))
    assert {name.split()[-1] for name in found} & set(INSIDE) or loaded.ref.n_encoder_layers
    assert max(found.values()) < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gemma2", "bert", "mt5"])
def test_the_laws_of_mass_hold_for_prompts_of_one_token(
    name: str, dtype: str, folder_of: Callable[[str], Path]
) -> None:
    loaded = load_model(folder_of(name), device="cpu", dtype=dtype)
    for letter in "abcdefgh":
        alone = PromptSet("one", (Prompt("i", "en", letter),))
        beside = PromptSet("two", (*alone.prompts, Prompt("k", "en", f"{letter} of a few tokens more than that")))
        for prompts in (alone, beside):  # an entropy of 0, in the only prompt or in the shortest
            errors = check_laws(loaded.anatomy, batch_of(loaded, prompts))
            assert {"attn.mass", "dec.cross.mass"} & set(errors)


def test_the_laws_of_mass_hold_in_bfloat16_where_all_shares_are_small(folder_of: Callable[[str], Path]) -> None:
    # Of a decoder that looks at the encoder, 0.2 on the first token at most; two passes are 0.05 apart.
    loaded = load_model(folder_of("mt5"), device="cpu", dtype="bfloat16", attn_implementation="sdpa")
    for shift in range(8):
        texts = [f"{line[: 8 + 9 * i + shift]} A. x B. y Answer:" for line in LINES[:4] for i in range(4)]
        prompts = PromptSet("q", tuple(Prompt(f"i{i}", "en", text) for i, text in enumerate(texts)))
        assert "dec.cross.mass" in check_laws(loaded.anatomy, batch_of(loaded, prompts).of(range(4)))


def test_the_laws_are_checked_on_a_prompt_of_enough_tokens(
    load: Load, asked: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, seen = load("llama"), []
    honest = interior_laws._Laws._check
    monkeypatch.setattr(
        interior_laws._Laws,
        "_check",
        lambda self, tag, layer: (
            seen.extend(len(x) for key, x in self.tensors.items() if key.kind == "attn.q" and key.layer == layer),
            honest(self, tag, layer),
        ),
    )

    def checked(*lengths: int) -> set[int]:
        seen.clear()
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        ids = torch.arange(10, 10 + max(lengths)).expand(len(lengths), -1)
        check_laws(loaded.anatomy, Batch(ids * mask, mask))
        return set(seen)

    enough = interior_laws.ENOUGH_TOKENS
    assert checked(1, enough + 3, enough, enough + 9) == {enough}
    assert checked(2, 1, enough) == {enough}
    assert checked(1, 3, 2) == {3}


def test_the_limit_of_a_law_is_printed_as_it_is(load: Load) -> None:
    stack, tap = load("llama").anatomy.stacks[""], tap_of("attn.mass")
    with pytest.raises(BabelScopeError, match=r"relative error 1.0e[+]00, at most 0.15 expected in bfloat16"):
        tap.error(stack, "attn.mass@0", torch.zeros(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16))


def test_segments_that_a_decoder_does_not_read_are_undefined_there(load: Load, asked: PromptSet) -> None:
    loaded = load("m2m100")
    block = captured(plan_of(loaded, asked, "mass", decoder="start"), loaded, asked)[0]
    names = plan_of(loaded, asked, "mass").summaries
    own_names = ("entropy_nats", "first_token", "mean_distance", "segment:cue", "segment:options", "segment:question")
    assert names == (*own_names, *(f"even:{name}" for name in own_names))
    own, cross = (rows_of(block, f"dec.{f}.mass", LAST)[..., :6] for f in ("attn", "cross"))
    assert np.isnan(own[..., 3:]).all()
    np.testing.assert_allclose(own[..., :3], np.broadcast_to([0, 1, 0], own[..., :3].shape), atol=1e-6)
    assert np.isfinite(cross[..., [0, 1, 3, 5]]).all()
    assert np.isnan(cross[..., 2]).all()  # tokens of two stacks have no distance
    assert (np.isnan(cross[..., 4]) == ~np.isin(np.arange(4), (1, 3))[:, None]).all()


def test_one_token_of_a_model_with_shared_keys_has_no_choice(load: Load) -> None:
    prompts = PromptSet("short", (Prompt("a", "en", "W"), Prompt("b", "en", "x")))
    loaded = load("llama")
    mass = rows_of(captured(plan_of(loaded, prompts, "mass"), loaded, prompts)[0], "attn.mass", LAST)
    np.testing.assert_allclose(mass, np.broadcast_to([0, 1, 0] * 2, mass.shape), atol=1e-6)
    every = rows_of(
        captured(plan_of(loaded, prompts, "mass", positions=(EVERY,)), loaded, prompts)[0], "attn.mass", EVERY
    )
    np.testing.assert_allclose(every, mass, atol=1e-6)


def test_large_key_biases_cost_no_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 60, 32, generator=generator) for _ in range(2))
    key = key + 30 * torch.randn(1, 2, 1, 32, generator=generator)
    mask = torch.ones(1, 60, dtype=torch.long)
    reduction = Reduction(mask, mask, torch.zeros(1, 60, 0), True, last_only=False)
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
        dots = DotProducts(query.to(dtype), key.to(dtype), None, True, 0.18)
        exact = (dots.query.double() @ dots.key.double().transpose(-1, -2) * 0.18).masked_fill(
            torch.ones(60, 60, dtype=torch.bool).triu(1), -torch.inf
        )
        expected = torch.special.entr(exact.softmax(-1)).sum(-1).transpose(1, 2)
        found = reduction.of_dot_products(dots)[..., 0]
        assert (found - expected).abs().max() < limit


def test_a_short_distance_keeps_its_digits_in_bfloat16() -> None:
    n = 288
    rotation = torch.arange(n)[:, None] * torch.pi / n * torch.arange(1, 33)
    local = torch.cat([rotation.cos(), rotation.sin()], -1)[None, None].bfloat16()  # a token attends to itself most
    mask = torch.ones(1, n, dtype=torch.long)
    reduction = Reduction(mask, mask, torch.zeros(1, n, 0), True, last_only=False)
    dots = DotProducts(local, local, None, True, 1.0)
    scores = (local.double() @ local.double().transpose(-1, -2)).masked_fill(
        torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf
    )
    expected = (scores.softmax(-1) * (torch.arange(n)[:, None] - torch.arange(n))).sum(-1)[0, 0]
    found = reduction.of_dot_products(dots)[0, :, 0, 2]
    # Positions summed up directly would come back rounded to half a token or a whole one at place 280.
    assert expected.abs().max() < 5
    assert (found - expected).abs().max() < 0.2


FAULTS = {
    "query": ("attn.q", lambda x: x[:, :, :-1]),
    "key": ("attn.k", lambda x: torch.cat([x, x], 2)),
    "value": ("attn.v", lambda x: x.roll(1, 2)),
    "scores": ("attn.scores", lambda x: x * 1.01),
    "pattern": ("attn.pattern", lambda x: x * 0.99),
    "mass": ("attn.mass", lambda x: x.roll(1, 2)),
}


@pytest.mark.parametrize("end", FAULTS)
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_law_catches_a_planted_fault(
    end: str, name: str, load: Load, asked: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, (site, fault) = load(name), FAULTS[end]

    def faulty(end_of_place: str, keep: Callable, reduction: object) -> object:
        return honest(end_of_place, (lambda x: keep(fault(x))) if end_of_place == end else keep, reduction)

    honest = place.Listener
    if end == "mass":  # of the model as it computes by itself; the reduction of the pattern stays as it is
        monkeypatch.setattr(Reduction, "_fused", lambda self, dots, own=Reduction._fused: fault(own(self, dots)))
    else:
        monkeypatch.setattr(place, "Listener", faulty)
    with pytest.raises(BabelScopeError, match=rf"{site}@0 .* breaks its law"):
        check_laws(loaded.anatomy, batch_of(loaded, asked))


def test_a_pattern_on_padding_is_caught(load: Load, asked: PromptSet, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("bert")
    honest = Watch.__torch_function__

    def leaking(self, func, types, args=(), kwargs=None):
        found = honest(self, func, types, args, kwargs)
        if self.softmax is not None:
            scores, _ = self.softmax
            self.softmax = scores, torch.full_like(scores, 1 / scores.shape[-1])
        return found

    monkeypatch.setattr(Watch, "__torch_function__", leaking)
    with pytest.raises(BabelScopeError, match=r"attn.(mass|pattern)@0 .* breaks its law"):
        check_laws(loaded.anatomy, batch_of(loaded, asked))


def test_attention_that_passes_elsewhere_is_refused_by_name(tmp_path: Path, asked: PromptSet) -> None:
    config = transformers.BigBirdPegasusConfig(
        vocab_size=320, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=128,
        attention_type="original_full", decoder_start_token_id=2, pad_token_id=0, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    model_zoo.save(transformers.BigBirdPegasusForConditionalGeneration(config), tmp_path, special=False)
    loaded = load_model(tmp_path, device="cpu")
    plan = make_plan(loaded, asked, sites=["enc.attn.pattern"], positions=["last"])
    with pytest.raises(BabelScopeError, match=r"site enc\.attn\.mass@0: not reachable, because nothing passes"):
        self_test(loaded, asked, plan)


def test_a_wrong_number_of_heads_breaks_the_law(load: Load, asked: PromptSet) -> None:
    anatomy: Anatomy = load("llama").anatomy
    stack = anatomy.stacks[""]
    wrong = tuple(replace(x, attention=replace(x.attention, key=(HEADS, 8))) for x in stack.layers)
    with pytest.raises(BabelScopeError, match=r"attn.k@0 .* breaks its law"):
        check_laws(replace(anatomy, stacks={"": replace(stack, layers=wrong)}), batch_of(load("llama"), asked))


def test_a_capture_of_patterns_reports_its_laws_and_keeps_resumed_blocks_equal(load: Load, asked: PromptSet) -> None:
    loaded = load("qwen3")
    plan = plan_of(loaded, asked, "q", "pattern", "mass", block_items=2, positions=(LAST, QUESTION))
    whole = captured(plan, loaded, asked)
    assert {"attn.q", "attn.pattern", "attn.mass"} < set(whole[0].law_errors)
    (resumed,) = run_plan(plan, loaded, asked, [("en", 1)])
    for key, rows in whole[1].rows.items():
        np.testing.assert_array_equal(rows.values, resumed.rows[key].values)


@pytest.mark.parametrize("name", [x for x in DECODERS if x not in BYPASSING])
def test_queries_need_no_step_by_step_computation(name: str, load: Load, asked: PromptSet) -> None:
    loaded, seen = load(name), []
    plan = plan_of(loaded, asked, "q", "k", "v")
    module = loaded.anatomy.stacks[""].layers[0].attention.module
    handle = module.register_forward_hook(lambda _, __, out: seen.append(out[1]))
    try:
        backend.open(loaded, plan)(batch_of(loaded, asked), lambda *_: None, logits=False, laws=False)
    finally:
        handle.remove()
    assert (seen[0] is None) == (loaded.model.config._attn_implementation == "sdpa")
