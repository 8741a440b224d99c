"""What a disk may hold after a power cut: recorded calls are replayed, and what was not synced is kept or dropped.

Stricter than most file systems: syncing a file does not keep its name, and syncing a folder keeps no other folder.
"""

import os
from pathlib import Path

PAGE = 4096


class File:
    """Bytes that are on the disk for certain, and writes that may be."""

    def __init__(self, data=b""):
        self.synced, self.written = data, []

    def sync(self):
        self.synced, self.written = self.now(), []

    def now(self):
        data = bytearray(self.synced)
        for offset, new in self.written:
            data.extend(bytes(max(0, offset + len(new) - len(data))))
            data[offset : offset + len(new)] = new
        return bytes(data)

    def after_the_cut(self, rng):
        """Some length that the file had on the way, at the end of a page, each of its new pages there or zero."""
        if not self.written:
            return self.synced
        data = self.now()
        ends = [*range(len(self.synced), len(data), PAGE), len(data)]
        kept = bytearray(data[: rng.choice(ends)])
        if rng.random() < 0.5:  # else in the order in which they were written
            for start in range(0, len(kept), PAGE):
                if rng.random() < 0.5:
                    page = self.synced[start : start + PAGE]
                    kept[start : start + PAGE] = page.ljust(len(kept[start : start + PAGE]), b"\0")
        return bytes(kept)


class Folder:
    """Names as programs see them, and as they are on the disk for certain."""

    def __init__(self):
        self.now, self.synced = {}, {}


class Disk:
    """A tree of folders below `root`; changes of names wait until a folder that they touch is synced."""

    def __init__(self, root):
        self.root, self.tree = Path(root), Folder()
        self.waiting = []  # each a list of (folder, name, what it becomes or None) that happen together

    def load(self, path, folder=None):
        """Take what lies below a path as synced long ago."""
        folder = folder or self.tree
        for entry in Path(path).iterdir():
            node = Folder() if entry.is_dir() else File(entry.read_bytes())
            folder.now[entry.name] = folder.synced[entry.name] = node
            if entry.is_dir():
                self.load(entry, node)

    def do(self, op, path, other, offset, data):
        """Repeat a recorded call."""
        if op in ("write", "sync"):
            node = self.node(path)
            if op == "write":
                node.written.append((offset, data))
            elif isinstance(node, File):
                node.sync()
            else:
                self._sync(node)
            return
        folder, name = self._place(path)
        match op:
            case "create" | "mkdir":
                self._change((folder, name, File() if op == "create" else Folder()))
            case "unlink":
                self._change((folder, name, None))
            case "link":
                self._change((*self._place(other), folder.now[name]))
            case "rename":
                self._change((*self._place(other), folder.now[name]), (folder, name, None))
            case _:
                raise ValueError(f"the model of the disk does not know {op}")

    def node(self, path):
        node = self.tree
        for name in Path(path).relative_to(self.root).parts:
            node = node.now[name]
        return node

    def cut(self, out, rng, only=None):
        """Write a state in which the disk may be found to an empty folder; with one waiting change only, if wanted."""
        in_order = rng.random() < 0.5
        last = rng.randint(0, len(self.waiting))
        survive = [i < last if in_order else rng.random() < 0.5 for i in range(len(self.waiting))]
        if only is not None:
            survive = [i == only for i in range(len(self.waiting))]
        view = {}

        def names(folder):
            return view.setdefault(id(folder), dict(folder.synced))

        for change, survives in zip(self.waiting, survive, strict=True):
            # Without the change that it followed, this one cannot have happened either.
            if survives and all((node is None) == (name in names(folder)) for folder, name, node in change):
                for folder, name, node in change:
                    names(folder).pop(name, None)
                    names(folder).update({name: node} if node else {})
        self._write(names, self.tree, Path(out), rng)

    def _write(self, names, folder, out, rng):
        for name, node in names(folder).items():
            if isinstance(node, Folder):
                (out / name).mkdir()
                self._write(names, node, out / name, rng)
            else:
                handle = os.open(out / name, os.O_WRONLY | os.O_CREAT, 0o444)
                os.write(handle, node.after_the_cut(rng))
                os.close(handle)

    def _place(self, path):
        path = Path(path)
        return self.node(path.parent), path.name

    def _change(self, *edits):
        for folder, name, node in edits:
            folder.now.pop(name, None)
            folder.now.update({name: node} if node else {})
        self.waiting.append(list(edits))

    def _sync(self, folder):
        """Keep all changes of a folder, and whatever they followed upon."""
        needed, kept = {(id(folder), name) for change in self.waiting for f, name, _ in change if f is folder}, []
        for change in reversed(self.waiting):
            keys = {(id(f), name) for f, name, _ in change}
            if keys & needed:
                needed |= keys
                kept.append(change)
        for change in reversed(kept):
            for f, name, node in change:
                f.synced.pop(name, None)
                f.synced.update({name: node} if node else {})
        self.waiting = [change for change in self.waiting if not any(change is k for k in kept)]


def read_calls(log):
    """Recorded calls as (name, path, other path, offset, bytes), in order."""
    data, at, calls = Path(log).read_bytes(), 0, []
    while at < len(data):
        end = data.index(b"\n", at)
        op, path, other, offset, size = data[at:end].decode().split("\t")
        at = end + 1 + int(size)
        calls.append((op, path, other, int(offset), data[end + 1 : at]))
    return calls
