"""Commit and read throughput of the store, each beside the raw disk of the same run.

A commit is everything from a block in memory to a shard that survives a power cut: digests, extremes, the HDF5 image,
write, fsync, link, fsync of the folder. Raw is `os.write` and `os.fsync` of as many bytes. A cold read is one layer of
one language through `Selection.numpy` after the page cache was dropped; raw is `os.pread` of the same extents. Rounds
alternate, and each pair gives one ratio, so that a busy machine disturbs both sides alike.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.shard import group_name, shard_path
from babelscope.schema import Block, CapturePlan, ModelRef, Position, Prompt, PromptSet, Rows, Site

LAST = Position("last")
BARS = {"commit": 0.5, "read": 0.6}


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall time: the disk is what is measured."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def plan_of(layers: int, blocks: int, items: int, dtype: str) -> tuple[CapturePlan, PromptSet]:
    prompts = PromptSet("bench", tuple(Prompt(f"i{i}", "en", f"text {i}") for i in range(blocks * items)))
    model = ModelRef("bench", "Bench", layers, dtype, "w" * 64, "t" * 64)
    sites = tuple(Site("resid.post", k) for k in range(layers))
    plan = CapturePlan(
        model, prompts.digest(), prompts.languages, prompts.items, sites, (LAST,), "", "torch", items, 4096, dtype
    )
    return plan, prompts


def block_of(plan: CapturePlan, index: int, values: np.ndarray) -> Block:
    items = np.array(plan.block(index), np.int64)
    tokens = np.ones(len(items), np.int64)
    return Block("en", index, items, {("resid.post", LAST): Rows(values)}, tokens, ("x",) * len(items))


def raw_write(folder: Path, data: memoryview) -> None:
    handle = os.open(folder / "raw.bin", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def drop_cache(paths: list[Path]) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def extents(store: ActivationStore, layer: int) -> list[tuple[Path, int, int]]:
    """Where the rows of a layer lie: (file, offset, bytes)."""
    found = []
    for block in store.blocks("en"):
        with store.shard("en", block) as file:
            value = file[group_name("resid.post", LAST)]["value"].id
            size = value.get_storage_size() // value.shape[0]
            found.append((shard_path(store.path, store.plan, "en", block), value.get_offset() + layer * size, size))
    return found


def raw_read(places: list[tuple[Path, int, int]]) -> None:
    for path, offset, size in places:
        handle = os.open(path, os.O_RDONLY)
        data = bytearray(size)
        done = 0
        while done < size:
            done += os.preadv(handle, [memoryview(data)[done:]], offset + done)
        os.close(handle)


def measure(folder: Path, plan: CapturePlan, prompts: PromptSet, values: np.ndarray, rounds: int) -> dict[str, float]:
    writer = StoreWriter.create(folder / "run.acts", plan, prompts, {})
    size = values.nbytes
    seconds: dict[str, list[float]] = {"commit": [], "raw_write": [], "read": [], "raw_read": []}
    for index in range(plan.n_blocks):
        block = block_of(plan, index, values)
        seconds["raw_write"].append(timed(lambda: raw_write(folder, values.reshape(-1).view(np.uint8).data)))
        (folder / "raw.bin").unlink()
        seconds["commit"].append(timed(lambda block=block: writer.put(block)))
    store = ActivationStore.open(folder / "run.acts")
    paths = sorted((folder / "run.acts").rglob("*.h5"))
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        layer = int(rng.integers(plan.model.n_layers))
        places = extents(store, layer)
        drop_cache(paths)
        seconds["raw_read"].append(timed(lambda places=places: raw_read(places)))
        drop_cache(paths)
        cold = ActivationStore.open(folder / "run.acts")
        seconds["read"].append(timed(lambda cold=cold, layer=layer: cold.select(f"resid.post@{layer}").numpy()))
    read = size // plan.model.n_layers * plan.n_blocks
    found = {
        "commit_MB_s": size / 1e6 / statistics.median(seconds["commit"]),
        "raw_write_MB_s": size / 1e6 / statistics.median(seconds["raw_write"]),
        "read_MB_s": read / 1e6 / statistics.median(seconds["read"]),
        "raw_read_MB_s": read / 1e6 / statistics.median(seconds["raw_read"]),
    }
    for name, raw in (("commit", "raw_write"), ("read", "raw_read")):
        found[f"{name}_share"] = statistics.median(b / a for a, b in zip(seconds[name], seconds[raw], strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--block-mb", type=int, default=96)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="a folder on the disk to be measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {}
    for dtype in options.dtype:
        kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
        items = options.block_mb * 10**6 // (options.layers * options.width * kind.itemsize)
        plan, prompts = plan_of(options.layers, options.blocks, items, dtype)
        rng = np.random.default_rng(0)
        values = rng.standard_normal((options.layers, items, options.width), np.float32).astype(kind)
        folder = Path(tempfile.mkdtemp(prefix="bench-store-", dir=options.folder))
        try:
            results[dtype] = measure(folder, plan, prompts, values, options.rounds)
        finally:
            shutil.rmtree(folder)
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'dtype':<10}{'':<8}{'store':>12}{'raw disk':>12}{'share':>8}{'bar':>8}")
    for dtype, found in results.items():
        for name, raw in (("commit", "raw_write"), ("read", "raw_read")):
            mine, disk, share = found[f"{name}_MB_s"], found[f"{raw}_MB_s"], found[f"{name}_share"]
            verdict = "" if share >= BARS[name] else "  below"
            print(f"{dtype:<10}{name:<8}{mine:>7.0f} MB/s{disk:>7.0f} MB/s{share:>8.0%}{BARS[name]:>8.0%}{verdict}")


if __name__ == "__main__":
    main()
