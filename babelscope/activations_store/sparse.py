"""A file in memory with holes, for the skeleton of one that is larger than memory."""

import io
import os


class SparseFile(io.RawIOBase):
    """What h5py writes, kept as it was written; what is never written takes no room.

    libhdf5 on a real file crashes the process when the disk is full. Here it lays out a file of any size without
    touching the disk; `write_to` then puts what it wrote between the values.

    Attributes
    ----------
    size : int
        Of the file, holes included.
    """

    def __init__(self) -> None:
        self.size = 0
        self._at = 0
        self._written: dict[tuple[int, int], bytes] = {}  # (offset, length), in the order of writing

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next byte is read or written."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, possibly behind the end."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence] + offset
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Set the size; the file only ever grows, as far as h5py goes."""
        self.size = self._at if size is None else size
        return self.size

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        """Keep a copy of the bytes."""
        new = bytes(data)
        self._written.pop((self._at, len(new)), None)
        self._written[self._at, len(new)] = new
        self._at += len(new)
        self.size = max(self.size, self._at)
        return len(new)

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        """Read what was written, and zeros where nothing was."""
        start, stop = self._at, min(self._at + len(into), self.size)
        into[:] = bytes(len(into))
        for (offset, _), data in self._written.items():
            first, last = max(start, offset), min(stop, offset + len(data))
            if first < last:
                into[first - start : last - start] = data[first - offset : last - offset]
        self._at = stop
        return max(0, stop - start)

    def write_to(self, handle: int) -> None:
        """Write everything to its place in an open file."""
        for (offset, _), data in self._written.items():
            write_at(handle, memoryview(data), offset)
        os.ftruncate(handle, self.size)


def write_at(handle: int, data: memoryview, offset: int) -> None:
    """Write bytes to a place in an open file, all of them."""
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written
