"""Several writers fill one store while it is read."""

from babelscope.activations_store import ActivationStore
from babelscope.activations_store.manifest import is_store
from babelscope.errors import BabelScopeError
from tests.crash.rig import Bench, Server, files_of, temporary_files

WRITERS = 4


def look(store, known, wrong):
    """Read what there is, and how many shards; `known` holds the inode of each one seen before."""
    if not is_store(store):
        return 0
    try:
        opened = ActivationStore.open(store)
        for language in opened.languages:
            if opened.blocks(language):
                assert opened.select("resid.post", languages=language, position="last").numpy().size
                assert len(opened.answers)
    except BabelScopeError as error:
        wrong.append(f"the reader failed: {error.problem}")
    for path in store.glob("shards/*/[!.]*.h5"):
        found = path.stat()
        if known.setdefault(path, (found.st_ino, found.st_mtime_ns)) != (found.st_ino, found.st_mtime_ns):
            wrong.append(f"{path.name}: overwritten")
    return len(known)


def test_four_writers_and_a_reader(shim, whole, tmp_path, tries, tally, server):
    servers = [server, *(Server(preload=shim) for _ in range(WRITERS - 1))]
    found, looks, puts, shards = [], 0, 0, 0
    for run in range(tries(5, 30)):
        folder = tmp_path / str(run)
        folder.mkdir()
        bench, wrong, known = Bench(server, folder, files_of(whole)), [], {}
        for number, each in enumerate(servers):
            each.start("write", store=bench.store, shuffled=WRITERS * run + number)
        while not all(each.finished() for each in servers):
            looks += look(bench.store, known, wrong) > 0
        ended = [each.finish() for each in servers]
        wrong += [f"exit {code}: {told[-1:]}" for code, told in ended if code]
        told = [line for _, lines in ended for line in lines]
        puts += sum(line.startswith("shard") for line in told)
        look(bench.store, known, wrong)
        shards += len(known)
        wrong += [f"{path}: left over" for path in temporary_files(folder)]
        found.append(wrong + bench.problems_at_the_end(told))
    for each in servers[1:]:
        each.close()
    assert puts > shards  # some raced for the same shard
    assert looks > len(found)
    tally(f"four writers and a reader, {looks:,} looks, {puts - shards:,} lost races", len(found), found, shards)
