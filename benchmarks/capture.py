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
import ctypes
import gc
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from capture_arms import ARMS, BRIDGE, LOOP, Setting, lens
from capture_workloads import DTYPES, WORKLOADS, prepare

from babelscope.hooks.prefixes import shared_batches
from babelscope.schema.plan import PASS_COST

M_MMAP_THRESHOLD = -3  # of malloc.h


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
    BRIDGE.clear()
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
