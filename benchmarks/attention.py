"""What attention mass costs beside the body of a model that runs under SDPA and captures nothing.

A random Llama of 8 layers and width 512 reads KFRD prompts with the tokenizer of the embedded model. The arms take
turns batch by batch, in changing order; a round is one pass over all prompts. CPU time, so that other work on the
machine counts little; the table gives medians over the rounds and ratios to the body, round by round.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import babelscope as bs
from babelscope import hooks
from babelscope.hooks.backends.torch import backend, forward
from babelscope.hooks.capture import run_batch
from babelscope.hooks.tokens import batches, encode, make_batch
from babelscope.schema.plan import PASS_COST
from babelscope.workflows import model_path

BODY = "body, no capture"
ARMS = {
    "mass, last row": ("attn.mass", "last"),
    "mass, all rows": ("attn.mass", "all"),
    "eager, patterns kept": ("attn.pattern", "all"),
}
DTYPES = ("float32", "bfloat16")


def save_model(folder: Path) -> None:
    """A random Llama, its weights scaled up so that attention and neurons are as uneven as in trained models."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model_path("organism"))
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=8000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8,
                    num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=1024)
    )  # fmt: skip
    with torch.no_grad():
        for layer in model.model.layers:
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                projection.weight.mul_(3)
        model.model.embed_tokens.weight.mul_(5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Arms:
    """Everything that is timed, batch by batch."""

    run: dict[str, list[Callable[[], object]]]
    n_tokens: int


def prepare(folder: Path, dtype: str, prompts, token_budget: int) -> Arms:
    loaded = hooks.load_model(folder, dtype=dtype, device="cpu")
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.prompts])
    groups = batches([len(e) for e in encoded], token_budget, PASS_COST)

    def body(rows):
        with torch.inference_mode():
            forward(loaded, make_batch(loaded, [encoded[i] for i in rows]), head=False)

    run = {BODY: [lambda rows=rows: body(rows) for rows in groups]}
    for name, (site, position) in ARMS.items():
        plan = hooks.make_plan(loaded, prompts, sites=[site], positions=[position], answers="none")
        one_pass = backend.open(loaded, plan)
        run[name] = [
            lambda rows=rows, plan=plan, one_pass=one_pass: run_batch(
                one_pass, loaded, plan, [prompts.prompts[i] for i in rows], [encoded[i] for i in rows]
            )
            for rows in groups
        ]
    return Arms(run, sum(map(len, encoded)))


def measure(arms: Arms, rounds: int) -> list[dict[str, object]]:
    names, seconds = list(arms.run), {name: [0.0] * rounds for name in arms.run}
    for name in names:
        for step in arms.run[name]:
            step()  # warm caches and allocators before anything counts
    for number in range(rounds):
        for batch in range(len(arms.run[BODY])):
            turn = (number + batch) % len(names)
            for name in names[turn:] + names[:turn]:
                start = time.process_time()
                arms.run[name][batch]()
                seconds[name][number] += time.process_time() - start
    ratios = {name: [a / b for a, b in zip(seconds[name], seconds[BODY], strict=True)] for name in names}
    return [
        {"arm": n, "median_s": statistics.median(seconds[n]), "ratio": statistics.median(ratios[n]),
         "least": min(ratios[n]), "most": max(ratios[n])}
        for n in names
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", default="kfrd-logical")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--token-budget", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    prompts, _ = bs.prompts([options.prompts], limit=options.limit)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        for dtype in DTYPES:
            arms = prepare(Path(folder), dtype, prompts, options.token_budget)
            found[dtype] = measure(arms, options.rounds)
    facts = {"prompts": len(prompts), "tokens": arms.n_tokens, "rounds": options.rounds,
             "threads": torch.get_num_threads()}  # fmt: skip
    if options.json:
        print(json.dumps(facts | {"dtypes": found}))
        return
    print(", ".join(f"{value} {name}" for name, value in facts.items()))
    for dtype, rows in found.items():
        for row in rows:
            spread = f"{row['least']:.3f} to {row['most']:.3f}"
            print(f"{dtype:<10}{row['arm']:<22}{row['median_s']:>8.3f} s {row['ratio']:>7.3f} x  ({spread})")


if __name__ == "__main__":
    main()
