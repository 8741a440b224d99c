"""Capture against the bare forward pass and against the other ways to get activations, side by side in one run.

Each arm runs in turn, several times over; the table gives medians of CPU time, wall time, and of their ratios to the
bare pass of the same round, so that a busy machine disturbs every arm alike. All but the loop get the batches of the
bare pass, sorted by length and without a mask, which is the fastest that the plain model can be run. Peak memory is
the growth of the resident size of a fresh process over one run, read from /proc (Linux with glibc), on a GPU the growth
of what torch's allocator has handed out there. The heap gives back what is free before the run, and what is large as
soon as it is freed: else the run fills what loading had freed and seems to take less than it does, and how the heap
happens to be fragmented decides (91 to 156 MB for the same bare pass).

The transformer_lens and nnsight arms are left out where these are not installed.
"""

import argparse
import copy
import ctypes
import functools
import gc
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import babelscope as bs
from babelscope import hooks
from babelscope.activations_store import StoreWriter
from babelscope.hooks.prefixes import shared_batches
from babelscope.hooks.tokens import Encoded, batches, encode, pad
from babelscope.schema import LEVERS, Prompt, PromptSet
from babelscope.schema.plan import PASS_COST
from babelscope.training.tokenizer import train_tokenizer
from babelscope.workflows.estimates import estimated

SITES = ("resid.post", "mlp.act")
SHAPES = {
    "small": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
              "vocab_size": 8000, "max_position_embeddings": 1024},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
           "vocab_size": 32000, "max_position_embeddings": 2048},
}  # fmt: skip
LANGUAGES = ("en", "de", "fr", "it", "ru", "pl", "ar", "he", "zh", "ja")
LOOP = "one prompt at a time"
M_MMAP_THRESHOLD = -3  # of malloc.h
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """What every arm works on."""

    loaded: hooks.LoadedModel
    prompts: PromptSet
    budget: int
    encoded: list[Encoded]

    def batches(self) -> list[list[int]]:
        return batches([len(e) for e in self.encoded], self.budget, PASS_COST)

    def ids(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = pad(self.loaded, [self.encoded[i] for i in rows])
        return ids, mask.sum(1) - 1


def bare(s: Setting) -> None:
    """Batched, length-sorted forward passes with logits; nothing is kept."""
    with torch.inference_mode():
        for rows in s.batches():
            s.loaded.model(input_ids=s.ids(rows)[0], use_cache=False)


def capture(s: Setting, levers: tuple[str, ...] = tuple(LEVERS), where: str | None = None) -> None:
    """All layers into a store on disk, hashed and fsynced."""
    plan = hooks.make_plan(
        s.loaded, s.prompts, sites=SITES, positions=["last"], answers="none", token_budget=s.budget, levers=levers
    )
    plan = estimated(Path("here"), plan, s.loaded, s.prompts, resized=True).plan  # batches as they suit the device
    with (
        tempfile.TemporaryDirectory(dir=where) as folder,
        StoreWriter.create(Path(folder) / "run.acts", plan, s.prompts, {}) as writer,
    ):
        for block in hooks.run_plan(plan, s.loaded, s.prompts, writer.pending()):
            writer.put(block)


def without_levers(s: Setting) -> None:
    """The same without levers: hooks on the body of the model."""
    capture(s, ())


def into_memory(s: Setting) -> None:
    """The same with the store on a file system in memory: what is left is not the disk's."""
    capture(s, where="/dev/shm")


def loop(s: Setting) -> None:
    """The scripts of the papers: one prompt at a time, a hook on every block and activation, the defaults otherwise."""
    kept = []

    def last(_: object, __: object, output: object) -> None:
        kept.append((output[0] if isinstance(output, tuple) else output)[0][-1].detach())

    layers = s.loaded.anatomy.stacks[""].layers
    handles = [m.register_forward_hook(last) for layer in layers for m in (layer.activation, layer.module)]
    try:
        for row in range(len(s.encoded)):
            with torch.no_grad():
                ids, _ = s.ids([row])
                s.loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()


def hidden_states(s: Setting) -> None:
    """`output_hidden_states`, last tokens kept; it has no activations of the MLP."""
    kept = []
    with torch.inference_mode():
        for rows in s.batches():
            ids, last = s.ids(rows)
            output = s.loaded.model(input_ids=ids, use_cache=False, output_hidden_states=True)
            kept.append(torch.stack([h[torch.arange(len(rows)), last] for h in output.hidden_states[1:]]))


_BRIDGE: dict[int, object] = {}


def lens(s: Setting) -> None:
    """`run_with_cache`, filtered to the two sites, last tokens kept."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    if id(s.loaded) not in _BRIDGE:  # a copy, since it rebuilds the model in place; a tokenizer would be loaded again
        model = copy.deepcopy(s.loaded.model)
        _BRIDGE[id(s.loaded)] = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
    bridge, kept = _BRIDGE[id(s.loaded)], []

    def wanted(name: str) -> bool:
        return (name.endswith("hook_out") and name.count(".") == 2) or name.endswith("mlp.hook_pre")

    with torch.inference_mode():
        for rows in s.batches():
            ids, last = s.ids(rows)
            _, cache = bridge.run_with_cache(ids, names_filter=wanted)
            kept.append([x[torch.arange(len(rows)), last] for x in cache.values()])


def nnsight(s: Setting) -> None:
    """A trace that takes the last tokens inside the model."""
    import nnsight as ns

    traced = ns.NNsight(s.loaded.model)
    kept = []
    with torch.inference_mode():
        for rows in s.batches():
            ids, last = s.ids(rows)
            row = torch.arange(len(rows))
            with traced.trace(input_ids=ids, use_cache=False):
                found = ns.save(list())  # noqa: C408 - as its documentation writes it
                for layer in traced.model.layers:
                    found.append(layer.mlp.act_fn.output[row, last])
                    found.append(layer.output[row, last])
            kept.append(found)


ARMS: dict[str, Callable[[Setting], None]] = {
    "bare forward pass": bare,
    "capture": capture,
    "capture, no levers": without_levers,
    "capture into memory": into_memory,
    LOOP: loop,
    "transformer_lens": lens,
    "nnsight": nnsight,
    "output_hidden_states": hidden_states,
}


def random_prompts(languages: int, items: int, vocabulary: int) -> tuple[PromptSet, PreTrainedTokenizerFast]:
    """Prompts of 20-112 random tokens that share nothing, and a tokenizer that reads them word by word."""
    rng = np.random.default_rng(1)
    words = {"<pad>": 0, "<unk>": 1} | {f"t{i}": i for i in range(2, vocabulary)}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    lengths = np.clip(np.round(np.exp(rng.normal(np.log(52), 0.4, (languages, items)))), 20, 112).astype(int)
    made = [
        Prompt(f"i{i}", LANGUAGES[k], " ".join(f"t{t}" for t in rng.integers(2, vocabulary, lengths[k, i])))
        for k in range(languages)
        for i in range(items)
    ]
    return PromptSet("random", tuple(made)), PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>")


def generated(name: str, languages: list[str], items: int, span: range) -> tuple[PromptSet, PreTrainedTokenizerFast]:
    """Prompts of this project as a byte-level tokenizer reads them, items that lie in `span` in every language."""
    prompts, _ = bs.prompts([name], languages=languages, limit=5 * items)
    tokenizer = train_tokenizer(["x"], 262)
    length = {(p.item, p.language): len(tokenizer(p.text)["input_ids"]) for p in prompts.prompts}
    kept = [i for i in prompts.items if all(length[i, g] in span for g in languages)][:items]
    return PromptSet(name, tuple(p for p in prompts.prompts if p.item in set(kept))), tokenizer


WORKLOADS = {
    "short": lambda: random_prompts(5, 60, 8000),
    "many": lambda: random_prompts(5, 300, 8000),  # what a capture costs once, spread over five times the prompts
    "kfrd": lambda: generated("kfrd-arithmetic", ["fr", "ja", "ar"], 64, range(225, 287)),
    "logical": lambda: generated("kfrd-logical", ["en", "fr", "de"], 32, range(360, 620)),
    "gpu": lambda: random_prompts(10, 200, 32000),
}


@functools.cache
def weights(dtype: str, shape: str, device: str) -> tempfile.TemporaryDirectory[str]:
    """A folder with a random model, written once for all workloads."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    folder = tempfile.TemporaryDirectory(dir="/dev/shm" if device != "cpu" else None)  # 13 GB that need no disk
    with torch.device(device):
        model = LlamaForCausalLM._from_config(LlamaConfig(**SHAPES[shape], pad_token_id=0), dtype=DTYPES[dtype])
    model.save_pretrained(folder.name)
    return folder


def prepare(workload: str, dtype: str, shape: str, device: str, budget: int) -> Setting:
    prompts, tokenizer = WORKLOADS[workload]()
    folder = weights(dtype, shape, device).name
    tokenizer.save_pretrained(folder)
    loaded = hooks.load_model(folder, device=device)
    return Setting(loaded, prompts, budget, encode(loaded.tokenizer, [p.text for p in prompts.prompts]))


def peak_mb(arm: str, prepared: tuple) -> float:
    """Growth of the peak resident size over one run of an arm, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (arm, prepared))


def _growth(arm: str, prepared: tuple) -> float:
    setting = prepare(*prepared)
    if arm == "transformer_lens":  # the copy of the model is no part of the run
        lens(Setting(setting.loaded, setting.prompts, setting.budget, setting.encoded[:1]))
    glibc = ctypes.CDLL(None)
    glibc.mallopt(M_MMAP_THRESHOLD, 2**16)
    glibc.malloc_trim(0)
    before = _resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    ARMS[arm](setting)
    return _resident_mb("VmHWM") - before


def _resident_mb(field: str) -> float:
    line = next(r for r in Path("/proc/self/status").read_text().splitlines() if r.startswith(field))
    return int(line.split()[1]) / 1024


def sampled(s: Setting, every: int) -> tuple[Setting, float]:
    """Every so many prompts, for the loop on a GPU, and how many times fewer tokens these are."""
    if every == 1:
        return s, 1.0
    few = s.encoded[::every]
    return Setting(s.loaded, s.prompts, s.budget, few), sum(map(len, s.encoded)) / sum(map(len, few))


def measure(s: Setting, arms: list[str], options: argparse.Namespace) -> tuple[int, list[dict[str, object]]]:
    """Number of rounds and medians over them; CPU time is that of the process, all threads of it."""
    cpu, wall, gpu = {a: [] for a in arms}, {a: [] for a in arms}, {}
    begun, rounds = time.monotonic(), 0
    for number in range(options.rounds + 1):  # the first warms caches and allocators and does not count
        if number > 1 and time.monotonic() - begun > options.seconds:
            break
        rounds = number
        for arm in arms:
            given, times = sampled(s, options.loop_every) if arm == LOOP else (s, 1.0)
            gc.collect()
            with grown(s.loaded.device, arm, gpu):
                started, used = time.perf_counter(), time.process_time()
                ARMS[arm](given)
                if s.loaded.device.type == "cuda":
                    torch.cuda.synchronize()
                cpu[arm].append((time.process_time() - used) * times)
                wall[arm].append((time.perf_counter() - started) * times)
            print(f"round {number}: {arm} {wall[arm][-1]:.2f} s", file=sys.stderr, flush=True)
    cpu, wall = ({arm: values[1:] for arm, values in found.items()} for found in (cpu, wall))
    median = statistics.median
    return rounds, [
        {
            "arm": arm,
            "cpu_s": median(cpu[arm]),
            "cpu_ratio": median(a / b for a, b in zip(cpu[arm], cpu[arms[0]], strict=True)),
            "wall_s": median(wall[arm]),
            "wall_ratio": median(a / b for a, b in zip(wall[arm], wall[arms[0]], strict=True)),
            "tokens_per_s": sum(map(len, s.encoded)) / median(wall[arm]),
            "peak_mb": gpu.get(arm),
        }
        for arm in arms
    ]


@contextmanager
def grown(device: torch.device, arm: str, found: dict[str, float]) -> Iterator[None]:
    """Note how much more memory of a GPU was in use at once than before; for another device, nothing."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield
    found[arm] = (torch.cuda.max_memory_allocated() - before) / 2**20


def run(workload: str, dtype: str, options: argparse.Namespace) -> dict[str, object]:
    on_gpu = options.device != "cpu"
    prepared = (workload, dtype, "7b" if on_gpu else "small", options.device, options.budget)
    s = prepare(*prepared)
    arms = [a for a in ARMS if find_spec(a) is not None or a not in ("transformer_lens", "nnsight")]
    arms = [a for a in arms if a in ("bare forward pass", *options.arms)] if options.arms else arms
    rounds, rows = measure(s, arms, options)
    _BRIDGE.clear()
    for row in rows:
        if not (on_gpu or options.no_memory):
            row["peak_mb"] = peak_mb(row["arm"], prepared)
    lengths = [len(e) for e in s.encoded]
    languages = [p.language for p in s.prompts.prompts]
    alone = 0
    for language in s.prompts.languages:
        ids = [e.ids for e, g in zip(s.encoded, languages, strict=True) if g == language]
        groups = shared_batches(ids, options.budget, PASS_COST)
        alone += sum(len(ids[i]) - (g.shared[-1] if g.shared else 0) for g in groups for i in g.rows)
    about = {
        "workload": workload, "dtype": dtype, "prompts": len(lengths), "tokens": sum(lengths),
        "shortest": min(lengths), "longest": max(lengths), "shared": 1 - alone / sum(lengths),
        "rounds": rounds, "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
    }  # fmt: skip
    return {**about, "arms": rows}


def show(found: dict[str, object]) -> None:
    print(
        f"{found['workload']}, {found['dtype']}: {found['prompts']} prompts of {found['shortest']}-{found['longest']} "
        f"tokens, {found['shared']:.0%} of them shared; {found['rounds']} rounds, {found['threads']} threads, "
        f"{found['device']}"
    )
    for row in found["arms"]:
        memory = "" if row["peak_mb"] is None else f"{row['peak_mb']:>8.0f} MB"
        print(
            f"  {row['arm']:<22} cpu {row['cpu_s']:>8.3f} s {row['cpu_ratio']:>6.3f}   wall {row['wall_s']:>8.3f} s "
            f"{row['wall_ratio']:>6.3f} {row['tokens_per_s']:>9,.0f} tokens/s{memory}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workload", nargs="+", choices=WORKLOADS, help="default: short and kfrd; gpu with --device cuda"
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="beside the bare pass; default: all")
    parser.add_argument("--device", default="cpu", help="cuda builds a model in the shape of Llama 7B in bf16")
    parser.add_argument("--budget", type=int, default=4096, help="tokens in a batch")
    parser.add_argument(
        "--loop-every", type=int, default=1, help="let the loop take every so many prompts, times scaled"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further round after so many")
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    on_gpu = options.device != "cpu"
    workloads = options.workload or (["gpu"] if on_gpu else ["short", "kfrd"])
    pairs = [(w, d) for w in workloads for d in (["bf16"] if on_gpu else options.dtype)]
    results = []
    for workload, dtype in pairs:
        results.append(run(workload, dtype, options))
        if not options.json:
            show(results[-1])
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
