"""Option texts and continuations are those of the model alone with one prompt, without a cache."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from transformers.cache_utils import DynamicLayer

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, blocks, continuing, make_plan, run_plan
from babelscope.hooks.answers import option_texts
from babelscope.hooks.continuing import _groups, follow
from babelscope.hooks.continuing_tried import LENGTH, tried
from babelscope.hooks.selftest import count_hooks
from babelscope.hooks.tokens import encode
from babelscope.schema import Block, Prompt, PromptSet

Load = Callable[[str], LoadedModel]
# Sliding windows of 8 (mistral, gemma2), learned positions (gpt2, opt), ALiBi (bloom), rotations.
DECODERS = ["llama", "mistral", "gemma2", "gpt2", "opt", "bloom"]
N = 6


@pytest.fixture(scope="module")
def asked() -> PromptSet:
    """Prompts of many lengths, some of them equal, with options of several tokens; one item has none."""
    texts = ("one", "two", "Which of these is larger? two or eleven:", "哪一个更大？", "Ni ipi kubwa zaidi", "six")
    options = (("kubwa", "x", "größer x"), ("x", "larger"), ("A B C", "D"), ("更大", "一个", "D"), (), ("kubwa", "x"))
    return PromptSet("asked", tuple(
        Prompt(f"i{i}", "en", text, letters=tuple("ABC"[: len(o)]), options=o, gold=0 if o else None)
        for i, (text, o) in enumerate(zip(texts, options, strict=True))
    ))  # fmt: skip


def answered(loaded: LoadedModel, prompts: PromptSet, **options: object) -> Block:
    plan = make_plan(
        loaded, prompts, sites=["enc.embed" if loaded.ref.n_encoder_layers else "embed"], positions=["last"],
        **{"answers": "texts", "continuation": N} | options,
    )  # fmt: skip
    (block,) = run_plan(plan, loaded, prompts, [("en", 0)])
    return block


def next_token(loaded: LoadedModel, ids: list[int], encoder: list[int] | None) -> torch.Tensor:
    """Log-probabilities behind some tokens, by a plain call of the model."""
    inputs = {"input_ids": torch.tensor([ids])}
    if encoder is not None:
        inputs = {"input_ids": torch.tensor([encoder]), "decoder_input_ids": inputs["input_ids"]}
    with torch.no_grad():
        return loaded.model(**inputs, use_cache=False).logits[0, -1].double().log_softmax(-1)


def start_of(loaded: LoadedModel, prompt: Prompt) -> tuple[list[int], list[int] | None]:
    ids = loaded.tokenizer(prompt.text)["input_ids"]
    if loaded.ref.n_encoder_layers:
        return [loaded.model.config.decoder_start_token_id], ids
    return ids, None


def slow_text_scores(loaded: LoadedModel, prompt: Prompt) -> list[float]:
    """Token by token, the better of both spellings; byte-level tokens do not merge with what stands before a space."""
    found = []
    for option in prompt.options:
        spelled = []
        for text in (option, " " + option):
            ids, encoder = start_of(loaded, prompt)
            if encoder is None:
                whole = loaded.tokenizer(prompt.text + text)["input_ids"]
                rest = whole[len(ids) :] if whole[: len(ids)] == ids else loaded.tokenizer(text)["input_ids"]
            else:
                rest = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
            total = 0.0
            for token in rest:
                total += float(next_token(loaded, ids, encoder)[token])
                ids = [*ids, token]
            spelled.append(total)
        found.append(max(spelled))
    return found


def slow_continuation(loaded: LoadedModel, prompt: Prompt) -> str:
    ids, encoder = start_of(loaded, prompt)
    new: list[int] = []
    for _ in range(N):
        token = int(next_token(loaded, ids + new, encoder).argmax())
        if token == loaded.model.config.eos_token_id:
            break
        new.append(token)
    return loaded.tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("name", [*DECODERS, "mt5", "bart", "m2m100"])
def test_answers_are_those_of_one_prompt_at_a_time(name: str, load: Load, asked: PromptSet) -> None:
    loaded = load(name)
    hooks = count_hooks(loaded.model)
    block = answered(loaded, asked)
    assert count_hooks(loaded.model) == hooks
    written = []
    for row, prompt in enumerate(asked.prompts):
        expected = slow_text_scores(loaded, prompt)
        found = block.answers.text_scores[row]
        # Sums of up to ten float32 log-probabilities from passes of another shape: 1e-6 each was measured.
        np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-4)
        assert np.isnan(found[len(expected) :]).all()
        assert (block.answers.text_tokens[row] > 0).tolist() == (~np.isnan(found)).tolist()
        written.append(slow_continuation(loaded, prompt))
    assert list(block.answers.continuation) == written
    assert any(written)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "bloom"])
def test_a_continuation_is_what_generate_writes(name: str, load: Load, asked: PromptSet) -> None:
    loaded = load(name)
    block = answered(loaded, asked, answers="none")
    for row, prompt in enumerate(asked.prompts):
        found = loaded.tokenizer(prompt.text, return_tensors="pt", return_token_type_ids=False)
        n = found["input_ids"].shape[1]
        with torch.no_grad():
            out = loaded.model.generate(**found, do_sample=False, max_new_tokens=N, pad_token_id=1)
        assert block.answers.continuation[row] == loaded.tokenizer.decode(out[0, n:], skip_special_tokens=True)


def test_a_continuation_ends_where_the_text_ends(load: Load, asked: PromptSet, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("llama")
    encoded = encode(loaded.tokenizer, [p.text for p in asked.prompts])
    nothing = [[] for _ in encoded]
    before = follow(loaded, encoded, None, nothing, N, 4096).written
    # Whatever the model writes second becomes the end of a text.
    ids, _ = start_of(loaded, asked.prompts[2])
    first = int(next_token(loaded, ids, None).argmax())
    second = int(next_token(loaded, [*ids, first], None).argmax())
    monkeypatch.setattr(loaded.model.generation_config, "eos_token_id", [2, second])
    after = follow(loaded, encoded, None, nothing, N, 4096).written
    assert after[2] == ("" if first == second else loaded.tokenizer.decode([first]))
    assert all(a.startswith(b) for a, b in zip(before, after, strict=True) if "�" not in a + b)


def test_batches_do_not_change_what_follows(load: Load, asked: PromptSet) -> None:
    loaded = load("gpt2")
    many, few = answered(loaded, asked), answered(loaded, asked, token_budget=1)
    assert many.answers.continuation == few.answers.continuation
    # Passes of another shape, as above.
    np.testing.assert_allclose(many.answers.text_scores, few.answers.text_scores, atol=1e-4)


def test_prompts_of_unequal_length_are_never_read_together() -> None:
    lengths, candidates = [3, 5, 3, 3, 5], [[(1,)], [], [(1, 2), (3,)], [], []]
    groups = list(_groups(lengths, candidates, 2, 19))
    assert sorted(i for g in groups for i in g) == [0, 1, 2, 3, 4]
    assert all(len({lengths[i] for i in g}) == 1 for g in groups)
    assert groups[0] == [0, 2]  # (1 + 2) rows of 3 + 2 tokens; a fourth row would make 20
    assert list(_groups([3, 3], [[], []], 0, 1)) == [[0], [1]]


def test_nothing_follows_beyond_the_context(load: Load) -> None:
    loaded = load("gpt2")
    text = ""
    while len(loaded.tokenizer(text)["input_ids"]) < 126:
        text += "q"
    n = len(loaded.tokenizer(text)["input_ids"])
    prompt = Prompt("a", "en", text, options=("x y z", "x"), gold=1)
    assert n == 126  # the context is 128
    answers = answered(loaded, PromptSet("p", (prompt,))).answers
    assert np.isnan(answers.text_scores[0]).tolist() == [True, False]
    assert answers.text_tokens[0].tolist() == [0, 1]
    ids = [int(next_token(loaded, start_of(loaded, prompt)[0], None).argmax())]
    ids.append(int(next_token(loaded, [*start_of(loaded, prompt)[0], *ids], None).argmax()))
    assert answers.continuation == (loaded.tokenizer.decode(ids, skip_special_tokens=True),)


def test_a_text_that_would_merge_with_the_prompt_is_encoded_by_itself(load: Load) -> None:
    tokenizer = load("llama").tokenizer
    prompt = Prompt("a", "en", "Which of the", options=("se",))
    (encoded,) = encode(tokenizer, [prompt.text])
    assert tuple(tokenizer(prompt.text + "se")["input_ids"][: len(encoded)]) != encoded.ids
    (((bare, spaced),),) = option_texts(tokenizer, [prompt], [encoded], behind=True)
    assert bare == tuple(tokenizer("se")["input_ids"])
    assert spaced == tuple(tokenizer(" se")["input_ids"])


def test_padding_between_prompt_and_continuation_would_be_noticed(
    load: Load, asked: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load("gpt2")
    monkeypatch.setattr(continuing, "_groups", lambda lengths, *_: [list(range(len(lengths)))])
    with pytest.raises(AssertionError, match="several lengths"):
        answered(loaded, asked)


# Hybrids whose states cannot be given to several candidates (Jamba), or that go wrong when several tokens follow at
# once (Falcon-H1), and a model that keeps no keys and values.
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
STATEFUL = {
    "FalconH1": {
        **SMALL, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "mamba_d_ssm": 32,
        "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
    },
    "Jamba": {
        **SMALL, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 2, "use_mamba_kernels": False,
        "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4,
    },
    "Mamba": {**SMALL, "state_size": 8},
}  # fmt: skip


@pytest.mark.parametrize("name", STATEFUL)
def test_a_cache_that_does_not_bear_it_is_done_without(
    name: str, build: Callable[..., LoadedModel], asked: PromptSet
) -> None:
    loaded, told = build(name, **STATEFUL[name]), []
    few = PromptSet("few", asked.prompts[:3])
    plan = make_plan(loaded, few, sites=["embed"], positions=["last"], answers="texts", continuation=N, levers=())
    (block,) = run_plan(plan, loaded, few, [("en", 0)], told.append)
    for row, prompt in enumerate(few.prompts):
        expected = slow_text_scores(loaded, prompt)
        # As above: sums of float32 log-probabilities from passes of another shape.
        np.testing.assert_allclose(block.answers.text_scores[row, : len(expected)], expected, atol=1e-4)
        assert block.answers.continuation[row] == slow_continuation(loaded, prompt)
    assert len([line for line in told if "does not bear option texts" in line]) == 1


def test_a_cache_that_loses_a_token_is_found_out(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("llama")
    assert tried(loaded) == ((True, True), "")
    update = DynamicLayer.update

    def forgetful(self, *args, **more):
        keys, values = update(self, *args, **more)
        return keys, values.index_fill(2, torch.tensor([1]), 0.0) if keys.shape[2] > LENGTH else values

    monkeypatch.setattr(DynamicLayer, "update", forgetful)
    cached, text = tried(loaded)
    assert cached == (False, False)
    assert "does not bear option texts and continuations" in text


def test_a_model_that_looks_ahead_does_not_continue(build: Callable[..., LoadedModel], asked: PromptSet) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    loaded = build("Bert", head="LMHeadModel", **sizes)
    plan = make_plan(loaded, asked, sites=["embed"], positions=["last"], answers="texts")
    with pytest.raises(BabelScopeError, match=r"does not continue texts: .* depends on later ones") as caught:
        run_plan(plan, loaded, asked, [])
    assert "--answers labels" in caught.value.hint


def test_what_follows_is_halved_where_the_memory_does_not_suffice(
    load: Load, asked: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, told, goes_on = load("gpt2"), [], continuing.goes_on
    plain = answered(loaded, asked)

    def cramped(loaded, seen, ids, *more):
        return goes_on(loaded, seen, torch.empty(2**60) if len(ids) > room else ids, *more)

    monkeypatch.setattr(blocks, "tried", lambda *_, **__: (continuing.BEARS_ALL, ""))
    monkeypatch.setattr(continuing, "goes_on", cramped)
    room = 2
    plan = make_plan(loaded, asked, sites=["embed"], positions=["last"], answers="texts", continuation=N)
    (found,) = run_plan(plan, loaded, asked, [("en", 0)], told.append)
    # Passes of another shape, as above.
    np.testing.assert_allclose(found.answers.text_scores, plain.answers.text_scores, atol=1e-4)
    assert found.answers.continuation == plain.answers.continuation
    assert told
    assert all("in two halves" in line for line in told)
    room = 0
    with pytest.raises(BabelScopeError, match="does not suffice for what follows one prompt of"):
        list(run_plan(plan, loaded, asked, [("en", 0)]))


def test_what_cannot_be_said_is_refused(load: Load, asked: PromptSet, prompts: PromptSet) -> None:
    for options in ({"answers": "texts"}, {"continuation": 3}):
        with pytest.raises(BabelScopeError, match="BertForMaskedLM does not continue"):
            make_plan(load("bert"), prompts, sites=["embed"], positions=["last"], **options)
    for options, problem in (({"answers": "letters"}, "way to answer"), ({"continuation": -1}, "by -1 tokens")):
        with pytest.raises(BabelScopeError, match=problem):
            make_plan(load("llama"), prompts, sites=["embed"], positions=["last"], **options)
    bare = PromptSet("bare", (Prompt("a", "en", "one"),))
    with pytest.raises(BabelScopeError, match="has options"):
        make_plan(load("llama"), bare, sites=["embed"], positions=["last"], answers="texts")


def test_the_prompt_is_unembedded_at_its_last_token_only(load: Load, asked: PromptSet) -> None:
    loaded, shapes = load("llama"), []
    head: nn.Module = loaded.anatomy.unembedding
    handle = head.register_forward_hook(lambda _, args, __: shapes.append(args[0].shape[1]))
    try:
        answered(loaded, asked, answers="none")
    finally:
        handle.remove()
    assert set(shapes) == {1}
