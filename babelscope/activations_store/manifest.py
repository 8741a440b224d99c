"""`store.json`: what a store is (hashed) and where it comes from."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args, get_origin

from babelscope.activations_store.hdf5 import DAMAGE, read_checked, read_only
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan

MAJOR, MINOR = 1, 0
SCHEMA = f"babelscope/{MAJOR}.{MINOR}"
_SCHEMA = re.compile(r"babelscope/(\d{1,4})\.(\d{1,4})\Z")
_LANGUAGE = re.compile(r"[a-z]{2,10}([-_+][A-Za-z0-9]{1,10})*\Z")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of `store.json`.

    Parameters
    ----------
    plan : CapturePlan
        Its fingerprint is the identity of the store.
    prompts_name : str
    prompts_source : mapping
        Name and origin of the prompt set.
    texts : bool
        Whether prompt texts are kept.
    provenance : mapping
        Command, versions, device, self-test: recorded, not part of the identity.
    unknown : tuple of str
        Fields of the plan that this version does not know, and so does not write under.
    """

    plan: CapturePlan
    prompts_name: str
    prompts_source: Mapping[str, Any]
    texts: bool
    provenance: Mapping[str, Any]
    unknown: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Give the text of `store.json`."""
        record = {
            "schema": SCHEMA,
            "plan_sha256": self.plan.fingerprint,
            "plan": self.plan.to_json(),
            "prompts": {"name": self.prompts_name, "source": dict(self.prompts_source)},
            "texts": self.texts,
            "provenance": dict(self.provenance),
        }
        return json.dumps(record, indent=1, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def read_manifest(path: Path) -> Manifest:
    """`store.json` of a store, folder or packed file, checked against its own hash and against the schema we read.

    Raises
    ------
    BabelScopeError
        If `path` holds no store, one of a newer schema, or one whose identity was edited.
    """
    file = path if path.is_file() else path / "store.json"
    record = _record(path)
    schema = _SCHEMA.match(str(record.get("schema", "")))
    if schema is None:
        raise _no_store(path, f"{file} names no BabelScope schema")
    if int(schema[1]) > MAJOR:
        raise BabelScopeError(
            f"{file} has schema {record['schema']}, this version reads {SCHEMA}", "upgrade babelscope"
        )
    try:
        plan = CapturePlan.from_json(record["plan"])
        edited = plan.fingerprint != record["plan_sha256"]
        prompts = record["prompts"]
        found = Manifest(
            plan, prompts["name"], prompts["source"], record["texts"], record["provenance"],
            CapturePlan.unknown_fields(record["plan"]),
        )  # fmt: skip
        for part in (plan, plan.model, found):
            _check_types(part)
    except (KeyError, TypeError, ValueError, AttributeError, BabelScopeError) as error:
        raise BabelScopeError(
            f"{file} is damaged ({type(error).__name__}: {error})", "restore it or capture again"
        ) from None
    if edited:
        raise BabelScopeError(f"{file} does not match its own hash: it was edited", "restore it or capture again")
    # The hash keeps nobody from writing a hostile plan together with its hash.
    check_plan(plan)
    return found


def _check_types(part: Any) -> None:
    """Raise TypeError if a field of a dataclass holds what its annotation does not allow."""
    for about in fields(part):
        value, kind = getattr(part, about.name), cast(type, about.type)
        if get_origin(kind) is tuple:
            element = get_args(kind)[0]  # looked up once: there may be a hundred thousand items
            right = all(isinstance(one, element) for one in value)
        elif get_origin(kind) is Mapping:
            right = isinstance(value, Mapping)
        elif isinstance(value, bool):
            right = kind is not int  # the first stores said `answers: false`
        else:
            right = isinstance(value, kind)
        if not right:
            raise TypeError(f"{about.name} is {_short(value)}")


def check_plan(plan: CapturePlan) -> None:
    """Refuse a plan whose names cannot become paths, or that has no blocks.

    Raises
    ------
    BabelScopeError
        Naming the language code or the number at fault.
    """
    folded: dict[str, str] = {}
    for language in plan.languages:
        if not isinstance(language, str) or not _LANGUAGE.match(language):
            raise BabelScopeError(f"{language!r} is no language code", "use codes such as en, zh or pt-BR")
        same = folded.setdefault(language.casefold(), language)
        if list(plan.languages).count(language) > 1 or same != language:
            raise BabelScopeError(
                f"the language codes {same!r} and {language!r} name one folder on some disks",
                "name each language once, and never apart by case only",
            )
    for name in ("block_items", "pooled"):
        if not isinstance(getattr(plan, name), int) or getattr(plan, name) < 1:
            raise BabelScopeError(f"{name} is {getattr(plan, name)!r}", "it must be 1 or more")
    for name in ("languages", "items", "positions"):
        if not getattr(plan, name):
            raise BabelScopeError(f"the plan names no {name}", "a store has at least one")
    if len(set(plan.items)) != len(plan.items):
        raise BabelScopeError("the plan names an item twice", "give repeated items different keys")


def is_store(path: Path) -> bool:
    """Whether a folder is a BabelScope store, of any version and even if edited."""
    try:
        return _SCHEMA.match(str(_record(path).get("schema", ""))) is not None
    except BabelScopeError:
        return False


def differences(have: Any, want: Any, name: str = "") -> list[str]:
    """Every field in which two plans differ, with both values; lists by their first differing entry."""
    if isinstance(have, dict) and isinstance(want, dict):
        keys = sorted(have.keys() | want.keys())
        return [d for k in keys for d in differences(have.get(k), want.get(k), f"{name}.{k}".lstrip("."))]
    if have == want:
        return []
    if isinstance(have, list) and isinstance(want, list):
        if len(have) != len(want) and max(len(have), len(want)) > 8:
            return [f"{name}: store has {len(have)} of them, this run has {len(want)}"]
        if len(have) == len(want):
            at = next(i for i, (a, b) in enumerate(zip(have, want, strict=True)) if a != b)
            return differences(have[at], want[at], f"{name}[{at}]")
    return [f"{name}: store has {_short(have)}, this run has {_short(want)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def manifest_bytes(path: Path) -> bytes:
    """The bytes of `store.json`, of a folder or of a packed file.

    Raises
    ------
    BabelScopeError
        If `path` is no store.
    """
    file = path / "store.json"
    try:
        if path.is_file():
            with read_only(path) as packed:
                return read_checked(packed["store"]).tobytes()
        if file.exists() and not file.is_file():  # reading a pipe would wait for ever
            raise _no_store(path, f"{file} is no regular file")
        return file.read_bytes()
    except OSError as error:
        reason = "not a readable HDF5 file" if path.is_file() else error.strerror
        raise _no_store(path, f"{path if path.is_file() else file}: {reason}") from None
    except DAMAGE as error:
        raise _no_store(path, f"{path}: {type(error).__name__}: {error}") from None


def _record(path: Path) -> dict[str, Any]:
    file = path if path.is_file() else path / "store.json"
    try:
        record = json.loads(manifest_bytes(path).decode("utf-8"))
    except (ValueError, RecursionError):
        raise _no_store(path, f"{file} is not JSON") from None
    if not isinstance(record, dict):
        raise _no_store(path, f"{file} is not a JSON object")
    return record


def _no_store(path: Path, why: str) -> BabelScopeError:
    return BabelScopeError(f"{path} is no BabelScope store ({why})", "capture one: cli.py capture run.acts ...")
