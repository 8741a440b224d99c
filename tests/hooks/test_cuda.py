"""What only a GPU can show: the same rows as on the CPU, through every backend, and memory that really runs out."""

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import parity
import pytest
import torch

from babelscope.activations_store import ActivationStore
from babelscope.hooks import LoadedModel, load_model, make_plan, run_plan
from babelscope.schema import Block, Prompt, PromptSet
from babelscope.workflows import capture
from babelscope.workflows.model_folders import model_path

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

FAMILIES = ("llama", "qwen3", "gemma2", "mixtral", "gpt2", "bert", "mt5")
SITES = ("resid.post", "mlp.act")


@pytest.fixture(autouse=True, scope="module")
def exact_products() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def sites_of(loaded: LoadedModel, prompts: PromptSet) -> list[str]:
    """Residual stream and activations of every stack, where the model has them: experts have no `mlp.act`."""
    wanted = [site for site in parity.site_names(loaded) if site.endswith(SITES)]
    return [site for site in wanted if not parity.refusal(loaded, prompts, "torch", site)]


def rows(loaded: LoadedModel, prompts: PromptSet, backend: str = "torch") -> dict[str, np.ndarray]:
    return parity.rows_of(parity.blocks_of(loaded, prompts, backend, sites_of(loaded, prompts)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["torch", "transformer-lens", "nnsight"])
def test_rows_are_those_of_the_cpu(family: str, backend: str, folder_of: Callable[[str], Path]) -> None:
    if backend != "torch" and find_spec(backend.replace("-", "_")) is None:
        pytest.skip(f"{backend} is not installed")
    prompts = parity.short_prompts()
    expected = rows(load_model(folder_of(family), device="cpu"), prompts)
    loaded = load_model(folder_of(family), device="cuda")
    if refused := [r for s in sites_of(loaded, prompts) if (r := parity.refusal(loaded, prompts, backend, s))]:
        pytest.skip(refused[0])
    found = rows(loaded, prompts, backend)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        # Sums in another order, twice float32's 6e-8 for each of a few hundred terms.
        assert np.abs(found[key] - values).max() <= 2e-5 * np.abs(values).max(), key


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing() -> None:
    prompts = PromptSet("long", tuple(Prompt(f"i{i}", "en", f"{i} " + "word " * 60) for i in range(512)))
    loaded, told = load_model(model_path("organism"), device="cuda"), []
    plan = make_plan(loaded, prompts, sites=SITES, positions=["last"], token_budget=1 << 20, levers=())

    def run() -> list[Block]:
        return list(run_plan(plan, loaded, prompts, plan.blocks, told.append))

    plain = run()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    run()
    peak = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    assert not told
    torch.cuda.set_per_process_memory_fraction((before + (peak - before) / 2) / torch.cuda.mem_get_info()[1])
    try:
        found = run()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("run in two halves" in line for line in told), (before, peak, told)
    for a, b in zip(found, plain, strict=True):
        for key, part in b.rows.items():
            assert np.abs(a.rows[key].values - part.values).max() <= 2e-5 * np.abs(part.values).max()


def test_a_capture_on_a_gpu_names_it(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "run.acts"
    capture(out, model=str(folder_of("llama")), prompts=parity.short_prompts(), device="cuda")
    assert torch.cuda.get_device_name() in json.dumps(dict(ActivationStore.open(out).provenance))
