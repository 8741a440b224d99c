"""A store as it is captured: a folder with one file per shard."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from babelscope.activations_store.handles import borrowed
from babelscope.activations_store.hdf5 import damage_told, opened
from babelscope.activations_store.shard import shard_path
from babelscope.schema import CapturePlan


class Folder:
    """Where the rows of a folder lie. `Packed` answers the same questions about one file.

    Attributes
    ----------
    step : int
        Items that the parts of a language, as `parts` numbers them, are apart.
    """

    def __init__(self, path: Path, plan: CapturePlan) -> None:
        self.path, self.plan = path, plan
        self.step = plan.block_items

    def committed(self, language: str) -> list[int]:
        """Blocks of the plan that are there."""
        return [b for b in range(self.plan.n_blocks) if self.file(language, b).exists()]

    def parts(self, language: str) -> list[int]:
        """Numbers of the parts that can be opened: here, one per committed block."""
        return self.committed(language)

    def file(self, language: str, number: int) -> Path:
        """The file that a part is in."""
        return shard_path(self.path, self.plan, language, number)

    @contextmanager
    def part(self, language: str, number: int) -> Iterator[h5py.Group]:
        """Open a part; what h5py raises inside becomes an error that names the file."""
        path = self.file(language, number)
        with damage_told(path, shard=True), borrowed(path, self.plan, language, number) as file:
            yield file

    @contextmanager
    def items(self) -> Iterator[h5py.Group]:
        """Open what is known about items and prompts."""
        with opened(self.path / "items.h5", self.plan) as file:
            yield file

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(p.stat().st_size for p in (self.path / "items.h5", *self.path.glob("shards/*/*.h5")) if p.exists())
