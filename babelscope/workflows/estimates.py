"""What a capture will need, before it begins: tokens, room on the disk, memory, and how many items make a shard."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelscope import layout
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan, PromptSet

if TYPE_CHECKING:
    from babelscope.hooks import LoadedModel

# Of a shard. Smaller ones cost a seek for every few rows; of larger ones a kill loses more (docs/store-format.md).
SHARD_BYTES = 96_000_000
FEWEST_ITEMS, MOST_ITEMS = 16, 4096

# Off the CPU a pass over few tokens takes as long as one over many: 70 ms for 32 layers of width 4096 on an H100,
# launched by Python, where 2,600 tokens take that long to compute.
LAUNCH_COST = 1024
# Tokens that fill enough batches for the least padding, and bytes of rows that may wait in memory for them.
POOL_TOKENS, POOL_BYTES = 32_768, 512_000_000

# Free room asked for, over that of the values: headers, digests and answers.
MARGIN = 1.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a capture will do, as printed by `--dry-run`."""

    rows: int
    tokens: int
    store_bytes: int
    free_bytes: int
    plan: CapturePlan

    @property
    def block_bytes(self) -> float:
        """Bytes of the values of a typical block."""
        return self.store_bytes / self.rows * min(self.plan.block_items, len(self.plan.items))

    def __str__(self) -> str:
        plan = self.plan
        return layout.facts({
            "rows": f"{self.rows:,} prompts, {len(plan.items):,} items x {len(plan.languages)} languages",
            "tokens": f"{self.tokens:,}",
            "sites": f"{len(plan.sites)} ({', '.join(plan.site_layers())}), {plan.dtype}",
            "store": f"{self.store_bytes / 1e6:,.1f} MB ({self.free_bytes / 1e9:,.1f} GB free)",
            "shards": f"{len(plan.blocks):,} of up to {plan.block_items:,} items, {self.block_bytes / 1e6:,.1f} MB",
            "plan": plan.fingerprint[:16],
        })  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        plan = self.plan
        return {
            "rows": self.rows, "items": len(plan.items), "languages": list(plan.languages), "tokens": self.tokens,
            "sites": list(map(str, plan.sites)), "dtype": plan.dtype, "store_bytes": self.store_bytes,
            "free_bytes": self.free_bytes, "shards": len(plan.blocks), "block_items": plan.block_items,
            "block_bytes": self.block_bytes, "plan": plan.fingerprint,
        }  # fmt: skip

    def check_room(self, path: Path, share: float) -> None:
        """Refuse where the disk has less than 105 % of what is left to write, a share of the whole.

        Raises
        ------
        BabelScopeError
            Naming what is needed and what is free.
        """
        needed = MARGIN * share * self.store_bytes
        if self.free_bytes < needed:
            raise BabelScopeError(
                f"{path}: needs {needed / 1e9:.2f} GB, {self.free_bytes / 1e9:.2f} GB are free",
                "free some room, or name fewer sites or layers",
            )

    def check_memory(self) -> None:
        """Refuse blocks above a quarter of the memory: some wait, and one is twice there while it is written.

        Raises
        ------
        BabelScopeError
            Naming a number of items that fits.
        """
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if self.block_bytes > memory / 4:
            fitting = int(self.plan.block_items * memory / 4 / self.block_bytes)
            raise BabelScopeError(
                f"one block of {self.plan.block_items} items takes {self.block_bytes / 1e9:.1f} GB, more than a "
                f"quarter of the {memory / 1e9:.1f} GB of memory",
                f"--block-items {fitting}" if fitting else "name fewer sites, layers or positions",
            )


def batched_for(device: str, plan: CapturePlan, tokens: int, size: int) -> CapturePlan:
    """The plan with batches that suit a device.

    A CPU runs blocks one by one: that takes 4-9 % longer, and a kill loses little. Elsewhere passes are few and large.

    Parameters
    ----------
    tokens, size : int
        Of all prompts: tokens, and bytes of the values.
    """
    if device == "cpu":
        return plan
    n = len(plan.blocks)
    pooled = min(-(-POOL_TOKENS * n // max(tokens, 1)), int(POOL_BYTES * n / max(size, 1)), n)
    return replace(plan, pass_cost=LAUNCH_COST, pooled=max(pooled, 1))


def estimated(
    path: Path,
    plan: CapturePlan,
    loaded: "LoadedModel",
    prompts: PromptSet,
    begun_as: CapturePlan | None = None,
    *,
    resized: bool,
) -> Estimate:
    """What a plan needs, batched as fits the device, or as in the store that is continued.

    Parameters
    ----------
    begun_as : CapturePlan, optional
        Plan of that store.
    resized : bool
        Choose how many items make a shard of `SHARD_BYTES`.
    """
    from babelscope import hooks

    tokens, size = hooks.estimate(plan, loaded, prompts)
    if resized:
        fitting = int(SHARD_BYTES * len(prompts) / max(size, 1))
        plan = replace(plan, block_items=min(max(fitting, FEWEST_ITEMS), MOST_ITEMS))
    if begun_as is not None:
        # What came after the store was begun stays as it was there.
        kept = {name: getattr(begun_as, name) for name in ("pass_cost", "pooled", "even", "spellings")}
        plan = replace(plan, **kept)
    else:
        plan = batched_for(loaded.device.type, plan, tokens, size)
    folder = next(p for p in path.absolute().parents if p.is_dir())  # a dry run asks for no folder
    return Estimate(len(prompts), tokens, size, shutil.disk_usage(folder).free, plan)
