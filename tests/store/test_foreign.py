"""Names, manifests and texts that somebody else wrote."""

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path, PureWindowsPath

import h5py
import numpy as np
import pytest
import yaml

import babelscope
from babelscope import workflows
from babelscope.activations_store import ActivationStore
from babelscope.activations_store.hdf5 import put
from babelscope.activations_store.manifest import check_plan
from babelscope.activations_store.shard import shard_path
from babelscope.activations_store.sums import read_sums, write_sums
from babelscope.activations_store.verification import verify
from babelscope.cli.progress import bar
from babelscope.datasets.load import load_prompts
from babelscope.datasets.mapping import PromptMapping, read_mapping
from babelscope.errors import BabelScopeError, printable
from babelscope.schema import CapturePlan, ModelRef
from tests.store.stores import fill, make_plan, make_prompts

ROOT = Path(babelscope.__file__).parents[1]
RESERVED = ("aux", "con", "nul", "prn")


@pytest.mark.parametrize(
    "code", ["../x", "/etc", "a/b", "EN", "", "en\0", ".", "..", "en\n", "e", "en-", "é", "en\\x", "C:"]
)
def test_lang_code_rejects(tmp_path, code):
    prompts = make_prompts(1, (code,))
    with pytest.raises(BabelScopeError, match="is no language code"):
        check_plan(make_plan(prompts))
    with pytest.raises(BabelScopeError, match="is no language code"):
        fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codes", [("zh-Hant", "zh-hant"), ("pt_br", "pt_BR")])
def test_codes_that_differ_in_case_alone_are_refused(codes):
    with pytest.raises(BabelScopeError, match="name one folder on some disks"):
        check_plan(make_plan(make_prompts(1, codes)))


@pytest.mark.parametrize("code", RESERVED)
def test_reserved_windows_codes_get_prefix(tmp_path, code):
    prompts = make_prompts(1, (code,))
    plan = make_plan(prompts)
    parts = PureWindowsPath(shard_path(Path("s.acts"), plan, code, 0).as_posix()).parts
    assert parts == ("s.acts", "shards", f"l-{code}", "000000000-000000001.h5")
    assert not {part.partition(".")[0] for part in parts} & set(RESERVED)
    assert fill(tmp_path / "s.acts", plan, prompts).select("embed").numpy().shape == (1, 1, 6)


VALUES = (None, 0, -1, 10**30, 1.5, "", "x", [], {}, [[]], [None], [{}], {"a": []}, True)
PARTS = [("plan", f.name) for f in fields(CapturePlan)] + [("model", f.name) for f in fields(ModelRef)]


@pytest.mark.parametrize(("part", "name"), PARTS, ids=lambda text: text)
def test_store_json_tamper_refused(tmp_path, part, name):
    prompts = make_prompts(1, ("en",))
    path = fill(tmp_path / "s.acts", make_plan(prompts), prompts).path
    good = json.loads((path / "store.json").read_text())
    (path / "store.json").unlink()
    plan = CapturePlan.from_json(good["plan"])
    for value in VALUES:
        record = json.loads(json.dumps(good))
        (record["plan"] if part == "plan" else record["plan"]["model"])[name] = value
        try:
            fingerprint = CapturePlan.from_json(record["plan"]).fingerprint
        except Exception:  # it is no plan at all
            fingerprint = ""
        (path / "store.json").write_text(json.dumps(record))
        if fingerprint != plan.fingerprint:
            with pytest.raises(BabelScopeError, match=r"edited|damaged"):
                ActivationStore.open(path)
        # Who edits a plan can edit its hash as well: whatever the plan then says, it ends in a problem and a hint.
        (path / "store.json").write_text(json.dumps(record | {"plan_sha256": fingerprint}))
        with contextlib.suppress(BabelScopeError):
            store = ActivationStore.open(path)
            assert repr(store)
            verify(path, full=True)
            store.select("embed").numpy()


@pytest.mark.parametrize("name", ["prompts", "texts", "provenance", "plan_sha256", "schema", "plan"])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_no_field_of_store_json_is_believed(tmp_path, name, value):
    prompts = make_prompts(1, ("en",))
    path = fill(tmp_path / "s.acts", make_plan(prompts), prompts).path
    record = json.loads((path / "store.json").read_text()) | {name: value}
    (path / "store.json").unlink()
    (path / "store.json").write_text(json.dumps(record))
    if (name, value) in [("texts", True), ("provenance", {}), ("provenance", {"a": []})]:
        assert repr(ActivationStore.open(path))
        return
    with pytest.raises(BabelScopeError):
        ActivationStore.open(path)
    assert {finding.file for finding in verify(path).findings} == {"store.json"}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("item", "text", "language", "answer", "options", "gold", "covariates", "segments")
     for value in (3.5, [[]], [{}])] + [("text", {"a": []}), ("covariates", {"a": []}), (None, 3)],
    ids=repr,
)  # fmt: skip
def test_prompts_of_another_shape_are_one_problem(tmp_path, name, value):
    prompts = make_prompts(1, ("en",))
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    items = store.path / "items.h5"
    record = next(iter(prompts.prompts)).to_json()
    data = np.frombuffer(json.dumps(record | {name: value} if name else value).encode(), np.uint8)
    items.chmod(0o644)
    with h5py.File(items, "r+") as file:
        for dataset in ("record", "record_splits"):
            del file["prompts"][dataset]
        put(file["prompts"], "record", data)
        put(file["prompts"], "record_splits", np.array([0, len(data)]))
    for read in (lambda: store.covariates, lambda: store.answers, lambda: store.prompts):
        with pytest.raises(BabelScopeError, match=r"items\.h5: damaged"):
            read()
    assert [(finding.file, finding.damaged) for finding in store.verify(full=True).findings] == [("items.h5", True)]


def test_a_hostile_file_name_is_one_harmless_line(tmp_path):
    prompts = make_prompts(1, ("en",))
    path = fill(tmp_path / "s.acts", make_plan(prompts), prompts).path
    name = "[red]\x1b[2J\u202e\nstore.json: fine"
    (path / "shards/l-en" / f"{name}.h5").write_text("")
    (path / "shards/l-en" / os.fsdecode(b"\xff.h5")).write_text("")
    for untrusted in (False, True):
        with bar() as progress:
            found = workflows.verify(path, full=True, untrusted=untrusted, progress=progress)
        assert str(found).isascii()
        assert len(str(found).splitlines()) == 3
    write_sums(path)
    assert read_sums(path)[1] == []


UNPICKLES = re.compile(
    r"pickle\b|joblib\.(?:load|dump)|torch\.load\b|allow_pickle|read_hdf"
    r"|import (?:dill|shelve|marshal)\b|(?<!\.)\b(?:eval|exec)\("
)
FREE_OF_PICKLES = """
import sys
import babelscope as bs
from babelscope import workflows
from babelscope.cli.main import app
bs.analyze, workflows.verify, workflows.repair  # imports may unpickle what their own packages hold
def refuse(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"unpickled {arguments}")
sys.addaudithook(refuse)
store = bs.open(sys.argv[1])
store.select("embed").numpy(), store.answers, store.covariates, store.failed, store.prompts, repr(store)
workflows.verify(sys.argv[1], full=True)
workflows.repair(sys.argv[1], dry_run=True)
print("not once")
"""


def test_no_pickle_anywhere(tmp_path):
    lines = [
        (path.name, line.partition("#")[0].replace("allow_pickle=False", ""))
        for path in (ROOT / "babelscope").rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
    ]
    assert len(lines) > 5000
    assert [(name, line) for name, line in lines if UNPICKLES.search(line)] == []
    prompts = make_prompts(2)
    path = fill(tmp_path / "s.acts", make_plan(prompts), prompts).path
    command = [sys.executable, "-c", FREE_OF_PICKLES, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "not once\n", done.stderr


def test_yaml_norway(tmp_path):
    """`no` is Norwegian to us, and false to YAML 1.1."""
    assert yaml.safe_load("language: no") == {"language": False}
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        "key: id\nlanguage: no\ntext: y\ncolumns: [id, no, y, on]\nquotes: false\ncovariates: {off: on}\n"
    )
    want = PromptMapping(
        key="id", language="no", text="y", columns=("id", "no", "y", "on"), quotes=False, covariates={"off": "on"}
    )
    assert read_mapping(mapping) == want
    for wrong in (
        "language: false",
        "language: true",
        "columns: [id, 012]",
        "covariates: {true: x}",
        "language: ~\nkey: ~",
    ):
        mapping.write_text(wrong)
        with pytest.raises(BabelScopeError, match=r"m\.yaml: (language|columns|covariates|key)"):
            read_mapping(mapping)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json"])
def test_codes_that_are_words_elsewhere_stay_codes(tmp_path, suffix):
    """Norwegian, Min Nan and Nauruan are `no`, `nan` and `na`, which YAML and pandas take for something else."""
    codes = ("no", "nan", "na", "null", "true")
    rows = [{"item": "a", "language": code, "text": f"x {code}"} for code in codes]
    delimiter = {"csv": ",", "tsv": "\t"}.get(suffix)
    if delimiter:
        text = "\n".join(delimiter.join(cells) for cells in [list(rows[0]), *(list(r.values()) for r in rows)])
    else:
        text = json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows))
    (tmp_path / f"p.{suffix}").write_text(text)
    prompts, _ = load_prompts(str(tmp_path / f"p.{suffix}"))
    assert prompts.languages == codes


def test_a_terminal_is_told_no_control_character(tmp_path):
    prompts = make_prompts(1, ("en",))
    evil = "\x1b[2J\x1b]0;owned\x07 \u202e txt \r over"
    path = fill(
        tmp_path / "s.acts", make_plan(prompts, model=ModelRef(evil, evil, 3, "float32", "w", "t")), prompts
    ).path
    for shown in (repr(ActivationStore.open(path)), str(BabelScopeError(evil, evil)), printable(evil)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
        assert r"\x1b[2J" in shown
    assert printable("می\u200cخواهم\tहिन्\u200dदी ü\n") == "می\u200cخواهم\tहिन्\u200dदी ü\n"
