"""Sites hold what their names say, in every family, whatever the batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_zoo import BYPASSING, DECODERS, FAMILIES, HEADS, INSIDE, save

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, check_laws, load_model, make_plan, run_plan, self_test
from babelscope.hooks.anatomy import Anatomy, Layer
from babelscope.hooks.place import Place
from babelscope.hooks.selftest import count_hooks
from babelscope.hooks.tokens import Batch, encode, make_batch
from babelscope.schema import SITE_KINDS, Block, CapturePlan, Position, PromptSet

ALL_SITES = tuple(
    kind for kind in SITE_KINDS
    if not kind.startswith(("cross.", "moe.")) and kind not in INSIDE and kind != "attn.crossed"
)  # fmt: skip
Load = Callable[[str], LoadedModel]
# float32 passes in another batch shape: 3e-7 of the largest value was measured, a wrong row is off by its size.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def plan_of(loaded: LoadedModel, prompts: PromptSet, *positions: str, sites: Sequence[str] = ALL_SITES, **more: object):
    options = {"answers": "none", "block_items": 3, **more}
    return make_plan(loaded, prompts, sites=sites, positions=positions or ("last",), **options)


def captured(plan: CapturePlan, loaded: LoadedModel, prompts: PromptSet) -> list[Block]:
    pending = [(language, i) for language in plan.languages for i in range(plan.n_blocks)]
    return list(run_plan(plan, loaded, prompts, pending))


def batch_of(loaded: LoadedModel, prompts: PromptSet) -> Batch:
    return make_batch(loaded, encode(loaded.tokenizer, [p.text for p in prompts.prompts]))


def only_stack(anatomy: Anatomy, **changed: object) -> Anatomy:
    """The anatomy with something else in its only stack."""
    return replace(anatomy, stacks={"": replace(anatomy.stacks[""], **changed)})


def layers_of(loaded: LoadedModel) -> tuple[Layer, ...]:
    return loaded.anatomy.stacks[""].layers


def reference(name: str, loaded: LoadedModel, text: str) -> dict[str, np.ndarray]:
    """Sites of one prompt alone, by paths written down by hand: (layer, token, unit), without any of our hooks."""
    family, model, seen, handles = FAMILIES[name], loaded.model, {}, []

    def record(key: tuple[str, int], path: str, end: str) -> None:
        part = model.get_submodule(path)
        if end == "in":
            handles.append(part.register_forward_pre_hook(lambda _, args: seen.update({key: args[0].clone()})))
        else:
            first = lambda out: out[0] if isinstance(out, tuple) else out  # noqa: E731
            handles.append(part.register_forward_hook(lambda _, __, out: seen.update({key: first(out).clone()})))

    n = len(model.get_submodule(family.layers))
    for i in range(n):
        block = f"{family.layers}.{i}"
        record(("resid.post", i), block, "out")
        record(("attn.out", i), f"{block}.{family.attention_out}", "out")
        record(("attn.heads", i), f"{block}.{family.attention_out}", "in")
        record(("mlp.out", i), f"{block}.{family.down}", "out")
        record(("mlp.neurons", i), f"{block}.{family.down}", "in")
        record(("mlp.act", i), f"{block}.{family.activation}", "out")
    if family.embedded:
        record(("embed", 0), family.embedded, "out")
    ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
    try:
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states
    finally:
        for handle in handles:
            handle.remove()
    seen |= {("resid.pre", i): states[i] for i in range(n)}
    final = model.get_submodule(family.final_norm) if family.final_norm else torch.nn.Identity()
    with torch.no_grad():  # the model's own last state is taken after the final norm
        torch.testing.assert_close(final(seen["resid.post", n - 1]), states[n])
    layers = {kind: sorted(i for k, i in seen if k == kind) for kind, _ in seen}
    one = {key: x if x.ndim == 2 else x[0] for key, x in seen.items()}  # OPT flattens prompts and tokens
    found = {kind: torch.stack([one[kind, i] for i in which]).numpy() for kind, which in layers.items()}
    heads = found["attn.heads"]
    return found | {"attn.heads": heads.reshape(*heads.shape[:-1], HEADS, -1)}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_law_holds_exactly(name: str, load: Load, prompts: PromptSet) -> None:
    errors = check_laws(load(name).anatomy, batch_of(load(name), prompts))
    inside = {kind for kind in INSIDE if kind.startswith("attn.")}
    unreachable = {"attn.q", "attn.k", "attn.v"} if name in BYPASSING else set()
    assert set(errors) == set(ALL_SITES) | inside - unreachable
    # A few float32 roundings (6e-8 each) of one block; mass compares two passes, SDPA and step by step.
    assert max(error for site, error in errors.items() if site != "attn.mass") < 1e-6
    assert errors["attn.mass"] < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_sites_equal_a_slow_reference_at_every_token(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    blocks = captured(plan_of(loaded, prompts, "all", "last", "first", "mean"), loaded, prompts)
    for block in (blocks[0], blocks[-1]):
        texts = [prompts.of(block.language)[i].text for i in block.items]
        for row, text in enumerate(texts):
            for kind, expected in reference(name, loaded, text).items():
                rows = block.rows[kind, Position("all")]
                part = rows.values[:, rows.row_splits[row] : rows.row_splits[row + 1]]
                np.testing.assert_allclose(part, expected, err_msg=kind, **CLOSE)
                for position, value in (
                    ("last", expected[:, -1]), ("first", expected[:, 0]), ("mean", expected.mean(1)),
                ):  # fmt: skip
                    found = block.rows[kind, Position(position)].values[:, row]
                    np.testing.assert_allclose(found, value, err_msg=f"{kind} {position}", **CLOSE)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_do_not_depend_on_the_batch(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    together = captured(plan_of(loaded, prompts, "last", "mean", "segment:question"), loaded, prompts)
    alone = captured(plan_of(loaded, prompts, "last", "mean", "segment:question", token_budget=1), loaded, prompts)
    for a, b in zip(together, alone, strict=True):
        for key in a.rows:
            np.testing.assert_allclose(a.rows[key].values, b.rows[key].values, err_msg=str(key), **CLOSE)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_the_padding_side_of_the_tokenizer_changes_nothing(
    name: str, load: Load, prompts: PromptSet, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    family = FAMILIES[name]
    left = load_model(save(family.build(), tmp_path, special=family.encoder, padding_side="left"), device="cpu")
    assert left.tokenizer.padding_side == "left"
    ours, theirs = (captured(plan_of(m, prompts, sites=["resid.post"]), m, prompts) for m in (load(name), left))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(*(x.rows["resid.post", Position("last")].values for x in (a, b)))


@pytest.mark.parametrize("name", FAMILIES)
def test_right_padding_agrees_with_left_padding(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.of("en")])
    length = max(map(len, encoded))
    ids = torch.tensor([[1] * (length - len(e)) + list(e.ids) for e in encoded])
    mask = torch.tensor([[0] * (length - len(e)) + [1] * len(e) for e in encoded])
    extra = {}
    if name in ("gpt2", "bert", "xglm"):  # these count positions from the left edge unless they are told
        extra["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        body = loaded.model.base_model
        left = body(input_ids=ids, attention_mask=mask, output_hidden_states=True, **extra).hidden_states
    block = captured(plan_of(loaded, prompts, sites=["resid.pre"], block_items=5), loaded, prompts)[0]
    ours = block.rows["resid.pre", Position("last")].values
    for layer, found in enumerate(ours):
        np.testing.assert_allclose(found, left[layer][:, -1].numpy(), **CLOSE)


@pytest.mark.parametrize("name", ["llama", "gemma2", "bert", "phi3"])
def test_the_self_test_passes_and_says_what_it_measured(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    found = self_test(loaded, prompts, plan_of(loaded, prompts, "last", answers="labels"))
    assert {f"law of {kind}" for kind in ALL_SITES} < set(found)
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize(
    ("part", "site"),
    [("down_projection", "mlp"), ("output_projection", "attn"), ("activation", "mlp.act"), ("gate", "mlp.act")],
)
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_part_of_the_wrong_layer_breaks_a_law(
    name: str, part: str, site: str, load: Load, prompts: PromptSet
) -> None:
    loaded = load(name)
    first, second, *rest = layers_of(loaded)
    if part == "output_projection":
        other = second.attention.output_projection
        swapped = replace(first, attention=replace(first.attention, output_projection=other))
    else:
        swapped = replace(first, **{part: getattr(second, part)})
    wrong = only_stack(loaded.anatomy, layers=(swapped, second, *rest))
    with pytest.raises(BabelScopeError, match=rf"site {site}.*@0 .*breaks its law"):
        check_laws(wrong, batch_of(loaded, prompts))


def test_the_gate_taken_for_the_activation_breaks_the_law(load: Load, prompts: PromptSet) -> None:
    loaded = load("qwen2")
    layers = tuple(replace(layer, activation=layer.gate.module) for layer in layers_of(loaded))
    with pytest.raises(BabelScopeError, match=r"mlp.act@0"):
        check_laws(only_stack(loaded.anatomy, layers=layers), batch_of(loaded, prompts))


def test_an_embedding_taken_before_the_positions_breaks_the_law(load: Load, prompts: PromptSet) -> None:
    loaded = load("gpt2")
    wrong = only_stack(loaded.anatomy, embedded=Place(loaded.anatomy.stacks[""].embedding, "output"))
    with pytest.raises(BabelScopeError, match="embed@0"):
        check_laws(wrong, batch_of(loaded, prompts))


def test_a_capture_with_a_broken_law_yields_nothing(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    first, second, *rest = layers_of(loaded)
    layers = (replace(first, down_projection=second.down_projection), second, *rest)
    wrong = replace(loaded, anatomy=only_stack(loaded.anatomy, layers=layers))
    with pytest.raises(BabelScopeError, match="breaks its law"):
        captured(plan_of(wrong, prompts), wrong, prompts)
    assert count_hooks(loaded.model) == count_hooks_of_hidden_states(loaded)


def count_hooks_of_hidden_states(loaded: LoadedModel) -> int:
    """Hooks that transformers itself keeps once hidden states were asked for; none of ours is among them."""
    every = [h for m in loaded.model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return sum(not h.__module__.startswith("babelscope") for h in every)


def test_a_model_that_ignores_its_mask_fails_the_self_test(
    load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load("bert")
    body, honest = loaded.anatomy.body, loaded.anatomy.body.forward
    monkeypatch.setattr(body, "forward", lambda input_ids, attention_mask=None, **kw: honest(input_ids, **kw))
    with pytest.raises(BabelScopeError, match="failed: mask is honored"):
        self_test(loaded, prompts, plan_of(loaded, prompts, "last", sites=["resid.post"]))


def test_no_hook_stays_when_the_forward_pass_fails(
    load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load("qwen3")
    before = count_hooks(loaded.model)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(layers_of(loaded)[1].down_projection, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        captured(plan_of(loaded, prompts, answers="labels"), loaded, prompts)
    assert count_hooks(loaded.model) == before


def test_no_hook_stays_between_blocks(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    before = count_hooks(loaded.model)
    plan = plan_of(loaded, prompts, answers="labels")
    run = run_plan(plan, loaded, prompts, [("en", 0), ("en", 1)])
    next(run)
    assert count_hooks(loaded.model) == before
    run.close()


def test_layers_above_the_last_site_and_the_unembedding_are_not_run(load: Load, prompts: PromptSet) -> None:
    loaded = load("mistral")
    ran = []
    parts = {"layer 1": layers_of(loaded)[1].module, "head": loaded.anatomy.unembedding}
    handles = [m.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, m in parts.items()]
    try:
        plan = plan_of(loaded, prompts, sites=["mlp.act@0"], block_items=1)
        captured(plan, loaded, prompts)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == ["layer 1"]  # the pass for the laws of the first batch, and no other


def test_stopping_early_does_not_change_the_rows(load: Load, prompts: PromptSet) -> None:
    loaded = load("bloom")
    # Without levers: which block is pruned depends on where the pass ends.
    short = captured(plan_of(loaded, prompts, sites=["resid.post@0"], levers=()), loaded, prompts)
    full = captured(plan_of(loaded, prompts, sites=["resid.post"], levers=()), loaded, prompts)
    for a, b in zip(short, full, strict=True):
        key = ("resid.post", Position("last"))
        np.testing.assert_array_equal(a.rows[key].values[0], b.rows[key].values[0])


def test_a_block_comes_out_the_same_bits_again_on_its_own(load: Load, prompts: PromptSet) -> None:
    loaded = load("gpt-neox")
    plan = plan_of(loaded, prompts, "last", "all")
    every = captured(plan, loaded, prompts)
    (again,) = run_plan(plan, loaded, prompts, [("sw", 1)])
    (first,) = (b for b in every if (b.language, b.index) == ("sw", 1))
    for key in first.rows:
        np.testing.assert_array_equal(first.rows[key].values, again.rows[key].values)


@pytest.mark.parametrize("site", ["embed", "attn.k"])
def test_only_the_first_block_carries_law_errors(site: str, load: Load, prompts: PromptSet) -> None:
    blocks = captured(plan_of(load("llama"), prompts, sites=[site]), load("llama"), prompts)
    # The laws inside attention take two passes of their own: they are checked where the plan reads there.
    inside = {kind for kind in INSIDE if kind.startswith("attn.")} if site in INSIDE else set()
    assert set(blocks[0].law_errors) == {*ALL_SITES, *inside}
    assert not any(b.law_errors for b in blocks[1:])


@pytest.mark.parametrize("name", ["llama", "bert", "mixtral"])
def test_bfloat16_keeps_its_laws_and_its_type(name: str, folder_of: Callable[[str], Path], prompts: PromptSet) -> None:
    loaded = load_model(folder_of(name), dtype="bfloat16", device="cpu")
    plan = plan_of(loaded, prompts, sites=["resid.post", "attn.heads"])
    self_test(loaded, prompts, plan)
    values = captured(plan, loaded, prompts)[0].rows["resid.post", Position("last")].values
    assert values.dtype.name == "bfloat16"
    assert np.isfinite(values.astype(np.float32)).all()


def test_values_that_float16_cannot_hold_are_refused(
    folder_of: Callable[[str], Path], prompts: PromptSet, load: Load
) -> None:
    loaded = load_model(folder_of("llama"), device="cpu")
    with torch.no_grad():
        layers_of(loaded)[0].down_projection.weight.mul_(1e7)
    with pytest.raises(BabelScopeError, match=r"resid.post@0: values up to .* overflow float16"):
        captured(plan_of(loaded, prompts, sites=["resid.post"], dtype="float16"), loaded, prompts)
    fits = captured(plan_of(load("llama"), prompts, sites=["resid.post"], dtype="float16"), load("llama"), prompts)
    assert fits[0].rows["resid.post", Position("last")].values.dtype == np.float16


@pytest.mark.parametrize("name", DECODERS)
def test_answers_leave_the_rows_as_they_are(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    plain = captured(plan_of(loaded, prompts, sites=["resid.post@-1"]), loaded, prompts)
    asked = captured(plan_of(loaded, prompts, sites=["resid.post@-1"], answers="labels"), loaded, prompts)
    for a, b in zip(plain, asked, strict=True):
        key = ("resid.post", Position("last"))
        np.testing.assert_array_equal(a.rows[key].values, b.rows[key].values)
