"""A packed store: one HDF5 file, with all rows of a language in one group. `packing` writes it.

/store                    bytes of store.json
/items/...                the datasets of items.h5
/runs/...                 names and bytes of the files in runs/
/lang/<code>/blocks/...   which blocks of the plan are there, what computed each, and what gives back its file
/lang/<code>/...          the datasets of the shards, block behind block
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from babelscope.activations_store.handles import borrowed
from babelscope.activations_store.hdf5 import damage_told, opened, read_checked
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan

AGAIN = "pack the store again, or fetch the file again"


class Packed:
    """Where the rows of a packed file lie. `Folder` answers the same questions about a folder.

    Attributes
    ----------
    step : int
        Number of items: every language is one part, number 0.
    """

    def __init__(self, path: Path, plan: CapturePlan) -> None:
        self.path, self.plan = path, plan
        self.step = max(1, len(plan.items))
        self._found: dict[str, list[int]] = {}  # a packed file never changes

    def committed(self, language: str) -> list[int]:
        """Blocks of the plan that were packed."""
        if language not in self._found:
            with self.part(language) as group:
                found: list[int] = read_checked(group["blocks/block"]).tolist()
                if found != sorted(set(found)) or not set(found) <= set(range(self.plan.n_blocks)):
                    raise ValueError(f"{group.name}/blocks/block names blocks that the plan does not have")
            self._found[language] = found
        return self._found[language]

    def parts(self, language: str) -> list[int]:
        """Numbers of the parts that can be opened: 0, unless no block of the language was packed."""
        return [0] if self.committed(language) else []

    def file(self, language: str, number: int = 0) -> Path:
        """The file that a part is in."""
        return self.path

    @contextmanager
    def part(self, language: str, number: int = 0) -> Iterator[h5py.Group]:
        """Open the rows of a language; what h5py raises inside becomes an error that names the file."""
        with damage_told(self.path, again=AGAIN), borrowed(self.path, self.plan) as file:
            group = file["lang"][language]
            if bytes(group.attrs["language"]) != language.encode():
                raise BabelScopeError(f"{self.path}: {group.name} is of another language", AGAIN)
            yield group

    @contextmanager
    def items(self) -> Iterator[h5py.Group]:
        """Open what is known about items and prompts."""
        with opened(self.path, self.plan, again=AGAIN) as file:
            yield file["items"]

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size
