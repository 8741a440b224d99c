"""Capture against the bare forward pass and against the loop that the papers' scripts use, side by side in one run.

Each arm runs in turn, several times over; the table gives medians, and ratios to the bare pass. Peak memory is the
growth of the resident size of a fresh process over one run, read from /proc (Linux).
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import babelscope as bs
from babelscope import hooks, plugins
from babelscope.activations_store import StoreWriter
from babelscope.hooks.tokens import batches, encode, pad
from babelscope.workflows import model_path

SITES = ("resid.post", "mlp.act")


def bare(loaded, prompts, plan):
    """Batched, length-sorted forward passes with logits; nothing is kept."""
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.prompts])
    with torch.inference_mode():
        for rows in batches([len(e) for e in encoded], plan.token_budget):
            ids, mask = pad(loaded, [encoded[i] for i in rows])
            loaded.model(input_ids=ids, attention_mask=mask, use_cache=False)


def capture(loaded, prompts, plan):
    """Our capture of all layers into a store on disk, answers included."""
    with (
        tempfile.TemporaryDirectory() as folder,
        StoreWriter.create(Path(folder) / "run.acts", plan, prompts, {}) as writer,
    ):
        for block in plugins.load("backend", "torch").run(plan, loaded, prompts, writer.pending()):
            writer.put(block)


def loop(loaded, prompts, plan):
    """One prompt at a time with a hook on every block and activation function; everything is kept in memory."""
    kept = []
    modules = [m for n, m in loaded.model.named_modules() if n.endswith("act_fn") or n.rpartition(".")[2].isdecimal()]
    handles = [
        m.register_forward_hook(lambda _, a, o: kept.append((o[0] if isinstance(o, tuple) else o)[0, -1].clone()))
        for m in modules
    ]
    try:
        with torch.inference_mode():
            for prompt in prompts.prompts:
                loaded.model(**loaded.tokenizer(prompt.text, return_tensors="pt"), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


ARMS: dict[str, Callable] = {"bare forward pass": bare, "capture": capture, "one prompt at a time": loop}


def prepare(options):
    prompts, _ = bs.prompts([options.prompts], languages=options.languages.split(","), limit=options.limit)
    loaded = hooks.load_model(model_path(options.model), dtype="float32", device="cpu")
    return loaded, prompts, hooks.make_plan(loaded, prompts, sites=SITES, positions=["last"])


def peak_mb(arm: str, options) -> float:
    """Growth of the peak resident size over one run of an arm, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (arm, options))


def _growth(arm: str, options) -> float:
    loaded, prompts, plan = prepare(options)
    before = _resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    ARMS[arm](loaded, prompts, plan)
    return _resident_mb("VmHWM") - before


def _resident_mb(field: str) -> float:
    line = next(r for r in Path("/proc/self/status").read_text().splitlines() if r.startswith(field))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="organism")
    parser.add_argument("--prompts", default="kfrd-arithmetic")
    parser.add_argument("--languages", default="en,sw,zh")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    loaded, prompts, plan = prepare(options)
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    for run in ARMS.values():
        run(loaded, prompts, plan)  # warm caches and allocators before anything counts
    for _ in range(options.rounds):
        for name, run in ARMS.items():
            start = time.perf_counter()
            run(loaded, prompts, plan)
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    reference = median["bare forward pass"]
    rows = [
        {"arm": n, "median_s": median[n], "ratio": median[n] / reference, "peak_mb": peak_mb(n, options)} for n in ARMS
    ]
    if options.json:
        print(json.dumps({"prompts": len(prompts), "rounds": options.rounds, "arms": rows}))
        return
    print(f"{len(prompts)} prompts, {options.rounds} rounds, {torch.get_num_threads()} threads")
    for row in rows:
        print(f"{row['arm']:<22}{row['median_s']:>8.3f} s {row['ratio']:>7.2f} x {row['peak_mb']:>8.1f} MB")


if __name__ == "__main__":
    main()
