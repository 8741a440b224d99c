"""Ctrl-C and SIGTERM against the command line: the first stops after the block, the second at once."""

import random
import signal

import pytest

from babelscope.workflows.captures import QUEUE
from tests.cli import tiny
from tests.crash.rig import Server, temporary_files
from tests.store.stores import shards_of

# One item a block. What is imported before the forks is what each run would import anyway.
IMPORTS = (
    "babelscope.cli.main", "babelscope.workflows.captures", "babelscope.hooks.backends.torch", "babelscope.hooks.taps",
    "babelscope.datasets.generators.knowledge", "transformers.models.llama.modeling_llama",
    "babelscope.hooks.planning", "babelscope.hooks.blocks", "einops", "tests.crash.warm",
)  # fmt: skip
CAPTURE = (
    "--prompts", "knowledge", "--languages", "en,de", "--limit", "16", "--site", "mlp.act", "--block-items", "1",
    "--no-self-test",
)  # fmt: skip
BLOCKS = 32
SHARDS = "shards/*/[!.]*.h5"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(scope="module")
def cli_server(shim):
    running = Server(*IMPORTS)
    yield running
    running.close()


@pytest.fixture(scope="module")
def cli(cli_server, tmp_path_factory):
    """Runs a capture in a folder; exit code and what it printed."""
    folder = tmp_path_factory.mktemp("cli")
    tiny.save_model(folder / "tiny")

    def run(store, *options, **job):
        arguments = ["capture", str(store), "--model", str(folder / "tiny"), *CAPTURE, *options]
        code, _ = cli_server.run("run_cli", folder=folder, arguments=arguments, output=str(folder / "out"), **job)
        return code, (folder / "out").read_text(errors="replace")

    return run


@pytest.fixture(scope="module")
def undisturbed(cli, tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "run.acts"
    assert cli(path)[0] == 0
    return shards_of(path)


def stopped(cli, store, numbers, rng, seen):
    """Continue a capture and send it signals: its exit code, whether these ended it, and what is wrong with how."""
    waits = [(rng.uniform(0, 0.1), numbers[0]), *((rng.uniform(0, 0.01), n) for n in numbers[1:])]
    code, printed = cli(store, "--resume", after=[str(store), SHARDS], signals=waits)
    # Of two signals in one moment, only the second may be answered.
    if code == 0 or not any(said in printed for said in ("stopping after this block", "stopped at once")):
        # The signal came when the last block was written, or after it: then it ends Python as it does by default.
        done = sum(1 for _ in store.glob(SHARDS)) == BLOCKS
        return code, False, [] if done else [f"exit {code} before the end ({seen()}): {printed[-300:]}"]
    # Between the end of the loop and that of the process, a second Ctrl-C is answered by Python and not by us.
    ours = len(numbers) == 1 or "stopped at once" in printed
    found = [f"exit {code} after {numbers}: {printed[-2000:]}"] if ours and "Traceback" in printed else []
    if len(numbers) == 2:  # the second comes while the loop runs, or when the first has already ended it
        wanted = {CODES[n] for n in numbers} | {-numbers[1]}
        return code, True, found if code in wanted else [*found, f"exit {code} after {numbers}"]
    found += [] if code == CODES[numbers[0]] else [f"exit {code} after {numbers}"]
    found += [] if "run the same command with --resume" in printed else ["no hint"]
    found += [f"{path}: left over" for path in temporary_files(store)]
    # The block at work, those that wait to be written, and the one that is being written.
    late = sum(1 for _ in store.glob(SHARDS)) - seen()
    return code, True, found if late <= QUEUE + 2 else [*found, f"{late} more blocks"]


def test_signals(cli, cli_server, undisturbed, tmp_path, tries, tally):
    rng, found, at_stake = random.Random(0), [], 0
    sent = {1: 0, 2: 0}
    store = tmp_path / "run.acts"
    while sum(sent.values()) < tries(50, 200):
        numbers = [rng.choice(list(CODES)) for _ in range(rng.choice([1, 1, 2]))]
        code, ended, problems = stopped(cli, store, numbers, rng, lambda: cli_server.answer["seen"])
        sent[len(numbers)] += ended
        there = shards_of(store)
        at_stake += len(there) - 1
        problems += [f"{name}: wrong bytes" for name, data in there.items() if undisturbed[name] != data]
        found.append(problems)
        if code == 0:  # else the last block may be there, and beside it what the killed process was writing
            store = tmp_path / f"run{len(found)}.acts"
    assert cli(store, "--resume")[0] == 0
    assert shards_of(store) == undisturbed
    assert temporary_files(tmp_path) == []
    assert sent[2] > 10
    tally(f"SIGINT and SIGTERM, {sent[2]} of them followed by a second", sum(sent.values()), found, at_stake)


def test_a_full_disk_is_one_line_and_one_hint(cli, undisturbed, tmp_path):
    store = tmp_path / "run.acts"
    code, printed = cli(store, limit=max(map(len, undisturbed.values())) - 1)
    assert (code, "Traceback" in printed, "no room for" in printed) == (1, False, True)
    assert temporary_files(tmp_path) == []
    assert cli(store, "--resume")[0] == 0
    assert shards_of(store) == undisturbed
