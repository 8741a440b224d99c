"""The joint attention beside ordinary attention, side by side in one run: forward, and forward with backward.

Each arm runs in turn; the table gives medians of CPU time and of their ratios to scaled dot product attention of the
same round. Two languages a prompt, the first token a bridge, as in fine-tuning on code-switched data.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from babelscope.qcross.forms import FORMS, Joint, attend
from babelscope.qcross.masks import language_masks

SHAPES = {"B4 H12 L128 d64": (4, 12, 128, 64), "B2 H12 L512 d64": (2, 12, 512, 64)}
PLAIN = "plain sdpa, one query"


def timed(work: Callable[[], object]) -> float:
    """Seconds of CPU time: other jobs on the machine do not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def arms(shape: tuple[int, int, int, int], *, backward: bool) -> dict[str, Callable[[], object]]:
    """What is measured, by name; every arm computes on the same tensors."""
    generator = torch.Generator().manual_seed(0)
    n, _, length, dim = shape
    tensors = [torch.randn(shape, generator=generator).requires_grad_(backward) for _ in range(4)]
    ids = (torch.arange(length) >= length // 2).long().expand(n, length)
    masks, allowed = language_masks(ids), torch.ones(n, 1, length, length, dtype=torch.bool)
    query, cross, key, value = tensors

    def run(output: torch.Tensor) -> None:
        if backward:
            output.sum().backward()

    def plain() -> None:
        run(functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed))

    def eager() -> None:
        scores = (query @ key.transpose(-1, -2) * dim**-0.5).masked_fill(~allowed, torch.finfo(query.dtype).min)
        run(scores.softmax(-1) @ value)

    def form(name: str) -> Callable[[], object]:
        joint = Joint(query, cross, key, value, masks, allowed, dim**-0.5)
        return lambda: run(attend(joint, name)[0])  # type: ignore[arg-type]

    return {PLAIN: plain, "plain eager, one query": eager, **{name: form(name) for name in FORMS}}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for shape_name, shape in SHAPES.items():
        for backward in (False, True):
            found = arms(shape, backward=backward)
            seconds: dict[str, list[float]] = {name: [] for name in found}
            for round_ in range(options.rounds + 1):  # the first one warms up
                for name, work in found.items():
                    spent = timed(work)
                    if round_:
                        seconds[name].append(spent)
            print(f"{shape_name}, {'forward and backward' if backward else 'forward'}")
            for name, values in seconds.items():
                ratio = statistics.median(a / b for a, b in zip(values, seconds[PLAIN], strict=True))
                print(f"  {name:<24} {1e3 * statistics.median(values):8.1f} ms  {ratio:5.2f}")


if __name__ == "__main__":
    main()
