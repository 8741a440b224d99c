"""Each check of the self-test catches the fault that it is there for, and no other check does."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_hooks_sites import only_stack
from torch import Tensor

import babelscope.hooks.backends.torch as torch_backend
from babelscope import workflows
from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, load_model, make_plan, run_plan, self_test
from babelscope.hooks.backends.torch import TorchPass
from babelscope.hooks.selftest import FURTHER_PADDING
from babelscope.schema import CapturePlan, PromptSet, Site

Load = Callable[[str], LoadedModel]
LIMIT_S = 3.0  # of a small model


def plan_of(loaded: LoadedModel, prompts: PromptSet, *sites: str, **more: Any) -> CapturePlan:
    options = {"positions": ["last"], "answers": "none", "levers": (), **more}
    return make_plan(loaded, prompts, sites=sites or ("resid.post",), **options)


def failure(loaded: LoadedModel, prompts: PromptSet, plan: CapturePlan) -> str:
    with pytest.raises(BabelScopeError, match=r"self-test|law") as caught:
        self_test(loaded, prompts, plan)
    return caught.value.problem


def around(monkeypatch: pytest.MonkeyPatch, wrap: Callable[..., Any]) -> None:
    """Let every pass of a capture be `wrap(honest pass, run, batch, keep, **options)`."""
    honest = TorchPass.__call__
    monkeypatch.setattr(TorchPass, "__call__", lambda *args, **options: wrap(honest, *args, **options))


@pytest.mark.parametrize(
    ("name", "answers"), [("llama", "none"), ("llama", "labels"), ("bert", "none"), ("mt5", "none")]
)
@pytest.mark.parametrize("layer", [0, -1])
def test_a_capture_that_scales_the_stream_is_caught(
    name: str, answers: str, layer: int, load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = torch_backend.tapped

    def scaling(places: Any, keep: Callable[[Any, Tensor], None], *args: Any, **options: Any) -> Any:
        def kept(key: Any, x: Tensor) -> None:
            keep(key, x)
            if isinstance(key, Site):
                x.mul_(1.3)

        return honest(places, kept, *args, **options)

    monkeypatch.setattr(torch_backend, "tapped", scaling)
    site = f"dec.resid.post@{layer}" if name == "mt5" else f"resid.post@{layer}"
    plan = plan_of(load(name), prompts, site, answers=answers)
    assert "failed: output unchanged by capturing" in failure(load(name), prompts, plan)


def test_a_capture_that_changes_the_logits_is_caught(
    load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(honest: Any, *args: Any, **options: Any) -> Any:
        passed = honest(*args, **options)
        return passed if passed.logits is None else replace(passed, logits=passed.logits * 1.01)

    around(monkeypatch, scaled)
    plan = plan_of(load("llama"), prompts, answers="labels")
    assert "failed: output unchanged by capturing" in failure(load("llama"), prompts, plan)


def test_rows_of_another_prompt_are_caught(load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def rolled(honest: Any, run: Any, batch: Any, keep: Any, **options: Any) -> Any:
        return honest(run, batch, lambda site, x: keep(site, x.roll(1, 0)), **options)

    around(monkeypatch, rolled)
    plan = plan_of(load("llama"), prompts, positions=["first"])  # no padding in any prompt
    assert "failed: single equals batched" in failure(load("llama"), prompts, plan)


def test_logits_of_another_prompt_are_caught(load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def rolled(honest: Any, *args: Any, **options: Any) -> Any:
        passed = honest(*args, **options)
        return passed if passed.logits is None else replace(passed, logits=passed.logits.roll(1, 0))

    around(monkeypatch, rolled)
    plan = plan_of(load("llama"), prompts, answers="labels")
    assert "failed: single equals batched" in failure(load("llama"), prompts, plan)


def test_a_backend_that_ignores_the_mask_is_caught_though_the_model_honors_it(
    load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmasked(honest: Any, run: Any, batch: Any, keep: Any, **options: Any) -> Any:
        inputs = lambda self, batch, start: {"input_ids": batch.ids}  # noqa: E731
        with monkeypatch.context() as inside:
            inside.setattr(TorchPass, "_inputs", inputs)
            return honest(run, batch, keep, **options)

    around(monkeypatch, unmasked)
    assert "failed: mask is honored" in failure(load("bert"), prompts, plan_of(load("bert"), prompts))


def test_prompts_that_fill_the_context_leave_no_room_for_more_padding(
    load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, widths = load("gpt2"), []

    def recorded(honest: Any, run: Any, batch: Any, keep: Any, **options: Any) -> Any:
        widths.append(batch.ids.shape[1])
        return honest(run, batch, keep, **options)

    around(monkeypatch, recorded)
    self_test(loaded, prompts, plan_of(loaded, prompts))
    longest, further = widths[:2]
    assert further == longest + FURTHER_PADDING
    monkeypatch.setattr("babelscope.hooks.selftest.context_length", lambda *_: (longest + 1, "the model's context"))
    widths.clear()
    self_test(loaded, prompts, plan_of(loaded, prompts))
    assert max(widths) == longest + 1


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_block_that_was_not_located_is_caught(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    n = loaded.ref.n_layers - 1
    layers = loaded.anatomy.stacks[""].layers[:n]
    norm = {} if name == "bert" else {"final_norm": None}
    short = replace(
        loaded, anatomy=only_stack(loaded.anatomy, layers=layers, **norm), ref=replace(loaded.ref, n_layers=n)
    )
    assert f"returns {n + 2} hidden states" in failure(short, prompts, plan_of(short, prompts))


def test_hidden_states_of_another_block_are_caught(
    load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load("llama")
    body, honest = loaded.anatomy.body, loaded.anatomy.body.forward

    def swapped(*args: Any, **kwargs: Any) -> Any:
        output = honest(*args, **kwargs)
        if output.hidden_states is not None:
            first, second, *rest = output.hidden_states
            output.hidden_states = (second, first, *rest)
        return output

    monkeypatch.setattr(body, "forward", swapped)
    assert "failed: equals the model's hidden states" in failure(loaded, prompts, plan_of(loaded, prompts))


def test_a_check_that_compares_nothing_reports_no_number(
    load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load("llama")
    name = "equals the model's hidden states"
    assert name in self_test(loaded, prompts, plan_of(loaded, prompts))
    body, honest = loaded.anatomy.body, loaded.anatomy.body.forward

    def silent(*args: Any, output_hidden_states: bool = False, **kwargs: Any) -> Any:
        return honest(*args, **kwargs)

    monkeypatch.setattr(body, "forward", silent)
    assert name not in self_test(loaded, prompts, plan_of(loaded, prompts))
    # Which experts read a token can change with the last bit.
    routed = self_test(load("mixtral"), prompts, plan_of(load("mixtral"), prompts, "moe.expert"))
    assert not {"single equals batched", "mask is honored"} & set(routed)


LEFT: dict[str, tuple[str, Callable[[LoadedModel], Any]]] = {
    "hook": ("1 hooks", lambda m: m.anatomy.body.layers[0].register_forward_hook(lambda *_: None)),
    "attention": ("configuration", lambda m: setattr(m.model.config, "_attn_implementation_internal", "eager")),
    "option": ("configuration", lambda m: setattr(m.model.config, "use_cache", False)),
    "forward": ("forward", lambda m: setattr(m.anatomy.body.norm, "forward", m.anatomy.body.norm.forward)),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_a_capture_leaves_behind_is_caught(
    what: str, folder_of: Callable[[str], Path], prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(folder_of("llama"), device="cpu")  # of its own, since it does not stay as it was
    said, leave = LEFT[what]
    passes: list[None] = []

    def leaving(honest: Any, *args: Any, **options: Any) -> Any:
        passes.append(None)
        passed = honest(*args, **options)
        if len(passes) == 1:
            leave(loaded)
        return passed

    around(monkeypatch, leaving)
    problem = failure(loaded, prompts, plan_of(loaded, prompts))
    assert "leaves something behind" in problem
    assert said in problem


def test_a_law_is_named_when_it_fails(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    first, second, *rest = loaded.anatomy.stacks[""].layers
    layers = (replace(first, down_projection=second.down_projection), second, *rest)
    wrong = replace(loaded, anatomy=only_stack(loaded.anatomy, layers=layers))
    assert "breaks its law" in failure(wrong, prompts, plan_of(wrong, prompts))


@pytest.mark.parametrize("name", ["llama", "mt5"])
def test_a_plan_that_stays_outside_of_attention_does_not_pay_for_its_laws(
    name: str, load: Load, prompts: PromptSet
) -> None:
    tag = "dec." if name == "mt5" else ""
    outside, inside = (self_test(load(name), prompts, plan_of(load(name), prompts, f"{tag}{site}")) for site in
                       ("resid.post", "attn.mass"))  # fmt: skip
    assert f"law of {tag}attn.mass" in inside
    assert f"law of {tag}attn.mass" not in outside
    assert f"law of {tag}attn.heads" in outside


@pytest.mark.parametrize("position", ["segment:question", "words"])
@pytest.mark.parametrize("sites", [("dec.resid.post",), ("enc.resid.post", "dec.resid.post")])
def test_positions_in_text_that_the_decoder_does_not_read_are_one_problem(
    position: str, sites: tuple[str, ...], load: Load, prompts: PromptSet
) -> None:
    loaded = load("mt5")
    plan = plan_of(loaded, prompts, *sites, positions=[position])
    with pytest.raises(BabelScopeError, match=f"positions {position} pick nothing") as caught:
        self_test(loaded, prompts, plan)
    assert "--decoder copy" in caught.value.hint
    self_test(loaded, prompts, plan_of(loaded, prompts, *sites, positions=[position], decoder="copy"))
    # Without the self-test, every prompt is left out with its reason.
    block = next(run_plan(plan, loaded, prompts, plan.blocks))
    assert not len(block.items)
    assert len(block.failed) == len(prompts.of("en"))


@pytest.mark.parametrize("sites", [["resid.post", "mlp.act"], ["attn.mass", "attn.pattern", "resid.post"]])
def test_the_self_test_of_a_small_model_takes_seconds(sites: list[str]) -> None:
    loaded = load_model(workflows.model_path("organism"), device="cpu")
    prompts, _ = workflows.prompts_of(["kfrd-arithmetic", "knowledge"], limit=120)
    plan = make_plan(loaded, prompts, sites=sites, positions=["last"])
    began = time.perf_counter()
    self_test(loaded, prompts, plan)
    assert time.perf_counter() - began < LIMIT_S


def test_the_adapter_that_does_nothing_is_named(
    load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load("llama")

    class Switch:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("babelscope.hooks.model_checks.disabled", lambda _: Switch())
    idle = replace(loaded, switch=object())
    assert "changes nothing" in failure(idle, prompts, plan_of(idle, prompts))
