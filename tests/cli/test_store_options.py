"""How a capture stores, how large its shards are, and what it refuses before it begins."""

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.schema.plan import PASS_COST
from babelscope.workflows import estimates
from tests.analyses.planted import activations, write_store
from tests.cli import tiny
from tests.cli.conftest import Finished

Cli = Callable[..., Finished]
USAGE = namedtuple("USAGE", ("total", "used", "free"))


@pytest.fixture(scope="module")
def loud_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose residual stream leaves float16 in some items and not in others."""
    folder = tiny.save_model(tmp_path_factory.mktemp("loud") / "loud")
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(2e5)
    model.save_pretrained(folder)
    return folder


def capture(out: Path, model: Path, **options: Any) -> Any:
    arguments = {
        "prompts": ["kfrd-arithmetic"], "languages": ["en", "de"], "limit": 6, "sites": ["resid.post"],
        "self_test": False, "answers": "none",
    }  # fmt: skip
    return bs.capture(out, model=str(model), **{**arguments, **options})


def test_int8_takes_a_quarter_and_is_off_by_half_a_step(tiny_model: Path, tmp_path: Path) -> None:
    exact = capture(tmp_path / "exact.acts", tiny_model).select("resid.post").numpy()
    store = capture(tmp_path / "int8.acts", tiny_model, store_dtype="int8")
    assert "int8" in repr(store)
    step = np.abs(exact).max(axis=2, keepdims=True) / 127  # one shard holds all items of a language
    assert (np.abs(store.select("resid.post").numpy() - exact) <= 0.5001 * step).all()
    with h5py.File(next(store.path.glob("shards/l-de/*.h5"))) as shard:
        assert shard.attrs["device"].startswith(b"cpu (")
        assert {"torch", "transformers", "babelscope"} <= json.loads(shard.attrs["versions"]).keys()
    dry = capture(tmp_path / "none.acts", tiny_model, store_dtype="int8", dry_run=True)
    assert 4 * dry.store_bytes == capture(tmp_path / "none.acts", tiny_model, dry_run=True).store_bytes
    assert "int8" in str(dry)


def test_values_beyond_float16_stop_a_capture_or_are_clipped_and_marked(
    cli: Cli, loud_model: Path, tmp_path: Path
) -> None:
    command = ["capture", "run.acts", "--model", loud_model, "--prompts", "kfrd-arithmetic", "--languages", "en,de",
               "--limit", "6", "--site", "resid.post", "--store-dtype", "float16", "--no-self-test"]  # fmt: skip
    stopped = cli(*command)
    assert stopped.code == 1
    assert "resid.post@1: values up to" in stopped.err
    assert "overflow float16, which ends at 65504 (item '" in stopped.err
    assert "--on-overflow clip" in stopped.err
    assert cli(*command, "--on-overflow", "clip", "--overwrite").code == 0
    exact = capture(tmp_path / "exact.acts", loud_model).select("resid.post").numpy()
    store = bs.open("run.acts")
    np.testing.assert_array_equal(store.select("resid.post").numpy(), np.clip(exact, -65504, 65504).astype(np.float16))
    beyond = (np.abs(exact) >= 65520).any(axis=(0, 3))
    assert beyond.any()
    marked = {(i, g) for i, g in zip(store.marked["item"], store.marked["language"], strict=True)}
    assert marked == {(store.items[i], store.languages[a]) for a, i in np.argwhere(beyond)}
    assert "clipped" in cli("inspect", "run.acts").out


def test_an_analysis_refuses_marked_items_unless_told(tmp_path: Path) -> None:
    values = activations(np.random.default_rng(0), 3, 24, 16, shared=1.0)[None]
    values[0, 1, 2, 3] = np.inf
    values[0, 2, 5, 0] = np.nan
    store = write_store(tmp_path / "run.acts", {"resid.post": values})
    with pytest.raises(
        BabelScopeError, match=r"2 of \d+ items hold values that were clipped or are not finite"
    ) as error:
        bs.analyze(store, "cs", mode="corrected")
    assert "--marked drop" in error.value.hint
    dropped = bs.analyze(store, "cs", mode="corrected", marked="drop")["cs"]
    kept = bs.analyze(store, "cs", mode="corrected", marked="keep")["cs"]
    assert (dropped.provenance["items_marked"], kept.provenance["items_marked"]) == (2, 0)
    whole = write_store(tmp_path / "rest.acts", {"resid.post": np.delete(values, (2, 5), axis=2)},
                        items=[x for i, x in enumerate(store.items) if i not in (2, 5)])  # fmt: skip
    expected = bs.analyze(whole, "cs", mode="corrected")["cs"].table
    np.testing.assert_array_equal(dropped.table["matched"], expected["matched"])
    assert (
        bs.analyze(store, "cs", mode="corrected", languages=["en", "sw"], marked="drop")["cs"].provenance[
            "items_marked"
        ]
        == 1
    )


def test_the_plan_chooses_shards_of_96_mb(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = capture(tmp_path / "run.acts", tiny_model, dry_run=True)
    bytes_per_item = plain.store_bytes / plain.rows
    assert plain.plan.block_items == 4096  # small rows
    for size, items in ((bytes_per_item * 100, 100), (bytes_per_item, 16)):
        monkeypatch.setattr(estimates, "SHARD_BYTES", size)
        assert capture(tmp_path / "run.acts", tiny_model, dry_run=True).plan.block_items == items
    assert f"{plain.plan.block_items:,} items" in str(plain)


def test_a_store_is_continued_with_the_shards_that_it_has(tiny_model: Path, tmp_path: Path) -> None:
    capture(tmp_path / "run.acts", tiny_model, block_items=4)
    for shard in (tmp_path / "run.acts/shards/l-de").iterdir():
        shard.unlink()
    assert capture(tmp_path / "run.acts", tiny_model, resume=True).progress == (4, 4)
    with pytest.raises(BabelScopeError, match="block_items: store has 4, this run has 5"):
        capture(tmp_path / "run.acts", tiny_model, resume=True, block_items=5)


def test_batches_suit_the_device_and_a_store_is_continued_with_its_own(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"block_items": 2, "part": "1/1"}
    plain = capture(tmp_path / "run.acts", tiny_model, dry_run=True, **options)
    assert (plain.plan.pass_cost, plain.plan.pooled) == (PASS_COST, 1)
    monkeypatch.setattr(estimates, "POOL_TOKENS", int(0.4 * plain.tokens))
    pooled = estimates.batched_for("cuda", plain.plan, plain.tokens, plain.store_bytes)
    assert (pooled.pass_cost, pooled.pooled) == (estimates.LAUNCH_COST, 3)
    monkeypatch.setattr(estimates, "POOL_BYTES", int(0.2 * plain.store_bytes))
    assert estimates.batched_for("cuda", plain.plan, plain.tokens, plain.store_bytes).pooled == 1
    monkeypatch.setattr(estimates, "batched_for", lambda *_: pooled)
    whole = capture(tmp_path / "whole.acts", tiny_model, **options)
    for number in ("2/2", "1/2"):
        store = capture(tmp_path / "run.acts", tiny_model, block_items=2, part=number)
        assert store.progress == ((3, 6) if number == "2/2" else (6, 6))
    monkeypatch.undo()
    shards = {p.relative_to(store.path): p.read_bytes() for p in store.path.glob("shards/*/*.h5")}
    (tmp_path / "run.acts/shards/l-de" / "000000002-000000004.h5").unlink()
    assert capture(tmp_path / "run.acts", tiny_model, resume=True).plan == pooled
    for copy in (store, whole):
        assert {p.relative_to(copy.path): p.read_bytes() for p in copy.path.glob("shards/*/*.h5")} == shards


def test_a_damaged_shard_is_told_and_captured_again(tiny_model: Path, tmp_path: Path) -> None:
    whole = capture(tmp_path / "run.acts", tiny_model).select("resid.post").numpy()
    shard = next((tmp_path / "run.acts/shards/l-de").iterdir())
    shard.unlink()
    shard.write_bytes(b"no shard")
    told: list[str] = []
    store = capture(tmp_path / "run.acts", tiny_model, resume=True, note=told.append)
    assert any("damaged" in line and "quarantine/l-de-" in line and "captured again" in line for line in told)
    np.testing.assert_array_equal(store.select("resid.post").numpy(), whole)


def test_a_capture_asks_for_105_percent_of_what_is_left(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = capture(tmp_path / "run.acts", tiny_model, dry_run=True, block_items=3)
    needed = plan.store_bytes

    def free(share: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: USAGE(0, 0, int(share * needed)))

    free(1.04)
    with pytest.raises(BabelScopeError, match=r"needs .* GB, .* GB are free"):
        capture(tmp_path / "run.acts", tiny_model, block_items=3)
    assert not (tmp_path / "run.acts").exists()
    free(1.06)
    capture(tmp_path / "run.acts", tiny_model, block_items=3)
    next((tmp_path / "run.acts/shards/l-de").iterdir()).unlink()  # a quarter of it is to be done
    free(0.25)
    with pytest.raises(BabelScopeError, match="are free"):
        capture(tmp_path / "run.acts", tiny_model, resume=True)
    free(0.27)
    assert capture(tmp_path / "run.acts", tiny_model, resume=True).progress == (4, 4)


def test_a_block_above_a_quarter_of_the_memory_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = capture(tmp_path / "run.acts", tiny_model, dry_run=True, block_items=6).block_bytes
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": int(size * 4 * 0.51)}
    honest = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: pages.get(name) or honest(name))
    with pytest.raises(BabelScopeError, match="one block of 6 items takes") as caught:
        capture(tmp_path / "run.acts", tiny_model, block_items=6)
    assert caught.value.hint == "--block-items 3"
    assert capture(tmp_path / "run.acts", tiny_model, block_items=3).progress == (4, 4)
