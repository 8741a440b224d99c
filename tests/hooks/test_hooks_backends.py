"""What the backends refuse, and how they would be caught giving something else."""

import copy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import parity
import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version
from peft import LoraConfig, inject_adapter_in_model
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, bridged, extras, load_model, make_plan, run_plan, traced
from babelscope.hooks.backends import nnsight, nnsight_remote, transformer_lens
from babelscope.hooks.locate import locate
from babelscope.hooks.place import Place
from babelscope.hooks.reach import disagreement, sample_batch
from babelscope.hooks.tap import place_of
from babelscope.schema import PromptSet
from babelscope.workflows import capture

Load = Callable[[str], LoadedModel]


@pytest.fixture(scope="module")
def short() -> PromptSet:
    return parity.short_prompts()


def rows(loaded: LoadedModel, prompts: PromptSet, backend: str, *sites: str) -> dict[str, np.ndarray]:
    return parity.rows_of(parity.blocks_of(loaded, prompts, backend, list(sites)))


def problem(loaded: LoadedModel, prompts: PromptSet, backend: str, site: str) -> str:
    found = parity.refusal(loaded, prompts, backend, site)
    assert found.startswith(("site ", loaded.anatomy.name)), found
    return found


# --- The libraries: asked for late, and missed politely.


def test_libraries_are_imported_late_and_change_nothing_for_others() -> None:
    code = """
import logging, sys, warnings
from babelscope import plugins
assert {"nnsight", "nnsight-remote", "torch", "transformer-lens"} <= set(plugins.names("backend"))
assert "torch" not in sys.modules
for name in plugins.names("backend"):
    plugins.load("backend", name)
assert not {"transformer_lens", "nnsight", "peft"} & set(sys.modules)

from babelscope.hooks.backends import transformer_lens as ours
logging.getLogger("transformers").setLevel(logging.INFO)
before = list(warnings.filters)
with ours._as_it_was():
    import transformer_lens
assert logging.getLogger("transformers").level == logging.INFO
assert warnings.filters == before
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("backend", ["transformer-lens", "nnsight"])
def test_a_missing_or_old_library_is_told_with_the_pip_command(
    backend: str, load: Load, short: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(distribution: str) -> str:
        raise PackageNotFoundError(distribution)

    plan = make_plan(load("llama"), short, sites=["resid.post"], positions=["last"], backend=backend)
    for found, told in ((missing, "is not installed"), (lambda _: "0.1", "0.1 is installed")):
        monkeypatch.setattr(extras, "version", found)
        with pytest.raises(BabelScopeError, match=told) as caught:
            run_plan(plan, load("llama"), short, plan.blocks)
        assert backend in caught.value.problem
        assert caught.value.hint == "pip install 'babelscope[backends]'"


def test_versions_that_are_asked_for_are_those_of_pyproject() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    declared = {Requirement(r).name: Requirement(r).specifier for r in project["optional-dependencies"]["backends"]}
    assert str(declared["transformer-lens"]) == f">={transformer_lens.MINIMUM}"
    assert str(declared["nnsight"]) == f">={nnsight.MINIMUM}"
    assert Version(transformer_lens.MINIMUM) <= Version("4.3.0")


def test_a_backend_has_one_spelling_in_the_identity_of_a_plan(load: Load, short: PromptSet) -> None:
    plans = [
        make_plan(load("llama"), short, sites=["resid.post"], positions=["last"], backend=b)
        for b in ("transformer_lens", "transformer-lens")
    ]
    assert plans[0].fingerprint == plans[1].fingerprint


# --- Refusals: before there is a store, with the reason.


def test_a_refusal_leaves_no_store_behind(folder_of: Callable[[str], Path], short: PromptSet, tmp_path: Path) -> None:
    for self_test in (True, False):
        with pytest.raises(BabelScopeError, match=r"not reachable .* because TransformerLens cannot run it"):
            capture(
                tmp_path / "run.acts", model=str(folder_of("distilbert")), prompts=short, sites=["resid.post"],
                backend="transformer_lens", device="cpu", self_test=self_test,
            )  # fmt: skip
        assert list(tmp_path.iterdir()) == []


def test_a_capture_names_the_library_that_ran_it(
    folder_of: Callable[[str], Path], short: PromptSet, tmp_path: Path
) -> None:
    capture(
        tmp_path / "run.acts", model=str(folder_of("llama")), prompts=short, sites=["resid.post"], backend="nnsight",
        device="cpu",
    )  # fmt: skip
    assert '"nnsight":' in (tmp_path / "run.acts" / "store.json").read_text().replace(" ", "")


def test_a_kind_that_the_bridge_was_not_taught_is_refused(
    load: Load, short: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridged, "OWN_MODULE", ())
    found = problem(load("llama"), short, "transformer-lens", "mlp.act@1")
    assert "not reachable with the backend transformer-lens, because that backend has no way to mlp.act" in found


@pytest.mark.parametrize("backend", ["nnsight", "nnsight-remote"])
@pytest.mark.usefixtures("local")
def test_what_no_operation_holds_is_refused(
    backend: str, folder_of: Callable[[str], Path], short: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A custom implementation is never replaced by the eager one, and this one makes no softmax that could be read.
    monkeypatch.setitem(AttentionInterface._global_mapping, "fused", AttentionInterface._global_mapping["sdpa"])
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "fused", AttentionMaskInterface._global_mapping["sdpa"])
    loaded = load_model(folder_of("llama"), device="cpu")
    loaded.model.set_attn_implementation("fused")
    plan = make_plan(loaded, short, sites=["attn.mass", "attn.q"], positions=["last"], backend=backend)
    plugins.load("backend", backend).open(loaded, plan)
    plan = make_plan(loaded, short, sites=["attn.pattern"], positions=["last"], backend=backend)
    with pytest.raises(BabelScopeError, match="because the forward of LlamaAttention computes none of"):
        plugins.load("backend", backend).open(loaded, plan)


@pytest.mark.parametrize(
    ("name", "site", "hook", "reason"),
    [
        # Names of the bridge that exist and mean something else, never fire, or do not exist.
        ("gemma2", "attn.out", "hook_attn_out", "what it gives is another quantity"),
        ("bert", "attn.out", "hook_attn_out", "what it gives is another quantity"),
        ("gpt-neox", "attn.heads", "attn.hook_rot_q", "blocks.0.attn.hook_rot_q never fires there"),
        ("llama", "attn.heads", "attn.q.hook_out", "what it gives is another quantity"),
        ("llama", "mlp.neurons", "mlp.hook_pre", "what it gives is another quantity"),
        ("llama", "mlp.out", "mlp.hook_nothing", "has no hook mlp.hook_nothing in blocks.0"),
    ],
)
def test_a_hook_name_that_does_not_hold_the_site_is_refused(
    name: str, site: str, hook: str, reason: str, load: Load, short: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridged, "HOOKS", {**bridged.HOOKS, site: (hook,)})
    assert reason in problem(load(name), short, "transformer-lens", site)


def test_a_path_to_another_module_is_refused(load: Load, short: PromptSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spelled = traced.spelled
    monkeypatch.setattr(traced, "spelled", lambda path, served: spelled(path.replace("layers.1", "layers.0"), served))
    assert "site resid.post@1 is not reachable with the backend nnsight, because what it gives is another" in problem(
        load("llama"), short, "nnsight", "resid.post@1"
    )


@pytest.mark.parametrize(
    ("name", "site", "source"),
    [
        # `q.hook_out` lies before the rotation, `hook_attn_scores` is the pattern where the bridge leaves attention to
        # the model, and `hook_expert_weights` is the router's row over all experts.
        ("llama", "attn.q", "blocks.1.attn.hook_rot_q"),
        ("gpt2", "attn.q", "blocks.1.attn.q.hook_out"),
        ("llama", "attn.scores", "blocks.1.attn.hook_attn_scores"),
        ("bert", "attn.scores", "attention.self.scores"),
        ("xglm", "attn.scores", "self_attn.scores"),
        ("m2m100", "dec.cross.scores", "encoder_attn.scores"),
        ("mixtral", "moe.expert", "blocks.1.mlp.hook_expert_indices"),
        ("mixtral", "moe.weight", "mlp.experts.moe.weight"),
    ],
)
def test_the_first_name_of_the_bridge_that_holds_a_site_is_taken(
    name: str, site: str, source: str, load: Load, short: PromptSet
) -> None:
    loaded = load(name)
    plan = make_plan(loaded, short, sites=[f"{site}@1"], positions=["last"], backend="transformer-lens")
    (found,) = plugins.load("backend", plan.backend).open(loaded, plan).sources.values()
    if isinstance(found, Place):  # of the module that the copy has in the place of the model's own
        own = place_of(loaded.anatomy, plan.sites[0])
        path = next(path for path, module in loaded.model.named_modules() if module is own.module)
        assert f"{path}.{found.end}".endswith(source)
        assert type(found.module) is type(own.module)
        assert found.module is not own.module
    else:
        assert found == source


def test_a_site_that_no_name_holds_is_refused_with_what_each_of_them_gave(load: Load, short: PromptSet) -> None:
    found = problem(load("gpt-neox"), short, "transformer-lens", "attn.q@1")
    assert "because blocks.1.attn.hook_rot_q never fires there; " in found
    assert "; blocks.1.attn.q.hook_out fires, but what it gives is another quantity" in found
    assert found.endswith("; the model's own GPTNeoXAttention never fires there")


@pytest.mark.parametrize("backend", ["nnsight", "nnsight-remote"])
@pytest.mark.parametrize("name", ["llama", "falcon", "bloom"])
@pytest.mark.usefixtures("local")
def test_mass_alone_leaves_attention_as_the_model_computes_it(
    backend: str, name: str, load: Load, short: PromptSet
) -> None:
    loaded = load(name)
    plan = make_plan(loaded, short, sites=["attn.mass"], positions=["last"], backend=backend)
    reads = plugins.load("backend", backend).open(loaded, plan).reads
    takes_dot_products = [read.takes[0].end == "inputs" for read in reads]
    assert takes_dot_products == [name != "bloom"] * len(reads)  # BLOOM has no attention but its eager one
    expected, found = (rows(loaded, short, b, "attn.mass") for b in ("torch", backend))
    np.testing.assert_array_equal(found["attn.mass"], expected["attn.mass"])


def test_the_order_of_a_plan_is_not_that_of_the_pass(load: Load, short: PromptSet) -> None:
    sites = ["attn.heads", "attn.mass", "attn.pattern", "attn.scores", "attn.v", "moe.neurons", "moe.expert", "embed"]
    expected, found = (rows(load("mixtral"), short, backend, *sites) for backend in ("torch", "nnsight"))
    for site in sites:
        np.testing.assert_allclose(found[site], expected[site], rtol=0, atol=1e-6 * (site == "moe.neurons"))


def test_a_number_in_the_place_of_none_is_another_quantity(load: Load) -> None:
    loaded, scores = load("llama"), torch.tensor([[1.0, torch.nan], [2.0, 3.0]])
    assert disagreement(scores, scores, loaded) == ""
    assert "another quantity" in disagreement(scores.nan_to_num(0), scores, loaded)
    assert "another quantity" in disagreement(scores, scores.nan_to_num(0), loaded)
    assert "the shape (1, 2) in place of (2, 2)" in disagreement(scores[:1], scores, loaded)


@pytest.mark.parametrize("backend", ["transformer-lens", "nnsight"])
def test_blocks_that_nobody_reads_are_not_run(backend: str, load: Load, short: PromptSet) -> None:
    loaded = load("llama")
    plan = make_plan(loaded, short, sites=["resid.post@0"], positions=["last"], answers="none", backend=backend)
    opened = plugins.load("backend", backend).open(loaded, plan)
    blocks = opened.bridge.blocks if backend == "transformer-lens" else loaded.anatomy.body.layers
    ran: list[int] = []
    handles = [b.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(blocks)]
    kept: list[object] = []
    opened(sample_batch(loaded), lambda site, _: kept.append(site), logits=False, laws=False)
    assert (len(kept), set(ran) - {0}) == (1, set())
    opened(sample_batch(loaded), lambda site, _: kept.append(site), logits=True, laws=False)
    assert (len(kept), ran[-1]) == (2, 2)
    for handle in handles:
        handle.remove()


# --- Adapters.


@pytest.fixture
def adapted(folder_of: Callable[[str], Path]) -> Callable[[str], LoadedModel]:
    """A model with an adapter on every linear of its attention, whose effect is large."""

    def get(name: str) -> LoadedModel:
        loaded = load_model(folder_of(name), device="cpu")
        fused = {"gpt2": "c_attn", "gpt-neox": "query_key_value", "llama": "q_proj"}[name]
        torch.manual_seed(0)
        config = LoraConfig(
            r=4, lora_alpha=8, target_modules=[fused], init_lora_weights=False, fan_in_fan_out=name == "gpt2"
        )
        model = inject_adapter_in_model(config, loaded.model).eval().requires_grad_(False)
        return replace(loaded, model=model, anatomy=locate(model))

    return get


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "llama"])
def test_adapters_count_in_every_backend(name: str, adapted: Load, load: Load, short: PromptSet) -> None:
    loaded, sites = adapted(name), ("resid.post", "attn.heads", "mlp.act")
    expected = rows(loaded, short, "torch", *sites)
    plain = rows(load(name), short, "torch", *sites)
    assert np.abs(expected["resid.post"] - plain["resid.post"]).max() > 0.1
    for backend in ("transformer-lens", "nnsight"):
        found = rows(loaded, short, backend, *sites)
        # Merging adds the adapter to the weights before the product instead of after it: 1e-6 was measured.
        for site in sites:
            np.testing.assert_allclose(found[site], expected[site], rtol=1e-4, atol=2e-5)
    assert any("lora_A" in key for key in loaded.model.state_dict())


def test_an_adapter_that_the_bridge_drops_is_noticed(
    adapted: Load, short: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without merging, TransformerBridge cuts the base weights of the fused projection and loses the adapter.
    monkeypatch.setattr(transformer_lens, "merged_copy", copy.deepcopy)
    assert "not reachable" in problem(adapted("gpt2"), short, "transformer-lens", "resid.post")


# --- The road to another machine.


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are serialized as for NDIF, and run here."""
    path = list(sys.path)
    monkeypatch.setattr(nnsight_remote, "backend", nnsight_remote.NnsightRemoteBackend(remote="local"))
    yield
    sys.path[:] = path  # the simulated server moves our entries behind those of the installed packages


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("name", ["llama", "gemma2", "falcon", "mixtral"])
def test_a_request_to_another_machine_gives_the_rows_and_answers_of_the_model(
    name: str, load: Load, short: PromptSet
) -> None:
    inside = [f"attn.{part}" for part in ("q", "k", "v", "scores", "pattern", "mass")]
    sites = ("embed", "resid.pre", "resid.post", "attn.heads", "attn.out", *inside[3 * (name == "falcon") :])
    sites += ("moe.neurons", "moe.expert", "moe.weight") if name == "mixtral" else ()
    side = load(name).tokenizer.padding_side
    expected, found = (rows(load(name), short, backend, *sites) for backend in ("torch", "nnsight-remote"))
    assert set(found) == {*sites, "answers"}
    for site in found:
        if site == "moe.neurons":  # computed once more by `torch`
            np.testing.assert_allclose(found[site], expected[site], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(found[site], expected[site])
    assert load(name).tokenizer.padding_side == side


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("name", ["bert", "mt5"])
def test_models_that_were_not_tried_remotely_are_refused(name: str, load: Load, short: PromptSet) -> None:
    site = "resid.post" if name == "bert" else "dec.resid.post"
    assert "only causal language models" in problem(load(name), short, "nnsight-remote", site)


def test_ndif_without_a_key_is_refused_before_anything_travels(
    load: Load, short: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nnsight as library

    monkeypatch.setattr(library.CONFIG.API, "APIKEY", None)
    plan = make_plan(load("llama"), short, sites=["resid.post"], positions=["last"], backend="nnsight-remote")
    with pytest.raises(BabelScopeError, match="asks for a key") as caught:
        plugins.load("backend", plan.backend).open(load("llama"), plan)
    assert "NDIF_API_KEY" in caught.value.hint
