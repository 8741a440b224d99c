"""What a store is, in a few facts: for people and as JSON."""

from typing import TYPE_CHECKING, Any

from babelscope.errors import BabelScopeError

if TYPE_CHECKING:
    from babelscope.activations_store.reader import ActivationStore


def about(store: "ActivationStore") -> dict[str, Any]:
    """JSON-ready: model, prompts, items, languages, sites with their layers, size, progress, what was lost, versions.

    `failed` and `marked` count prompts; they are None, and `problem` says why, where a shard cannot be read.
    """
    done, planned = store.progress
    model, made = store.plan.model, store.provenance
    facts: dict[str, Any] = {
        "store": str(store.path),
        "model": {"source": model.source, "architecture": model.architecture, "layers": model.n_layers},
        "prompts": store.prompts_name,
        "items": len(store.items),
        "languages": list(store.languages),
        "sites": {name: list(layers) for name, layers in store.plan.site_layers().items()},
        "positions": [str(position) for position in store.plan.positions],
        "dtype": store.plan.dtype,
        "bytes": store.size,
        "shards": {"committed": done, "planned": planned},
        "failed": None,
        "marked": None,
        "plan": store.fingerprint,
        "created": made.get("created"),
        "device": made.get("device"),
        "versions": dict(made.get("versions") or {}),
    }
    try:
        facts["failed"] = len(store.failed)
        facts["marked"] = {str(status): int(n) for status, n in store.marked["status"].value_counts().items()}
    except BabelScopeError as error:  # a repr must not raise
        facts["problem"] = error.problem.replace(f"{store.path}/", "")
    return facts


def told(store: "ActivationStore") -> dict[str, str]:
    """The facts of `about` as short texts, each under a name."""
    found = about(store)
    model, shards = found["model"], found["shards"]
    sites = ", ".join(f"{name} x {len(layers)}" for name, layers in found["sites"].items())
    lost = found["problem"] if "problem" in found else f"{found['failed']} failed prompts"
    lost += "".join(f", {n} {status}" for status, n in (found["marked"] or {}).items())
    known = found["versions"]
    made = [
        (found["created"] or "")[:16].replace("T", " "),  # to the minute, UTC
        *(f"{name} {known[name]}" for name in ("babelscope", "torch") if name in known),
        found["device"] or "",
    ]
    return {
        "store": found["store"],
        "model": f"{model['source']} ({model['architecture']}, {model['layers']} layers)",
        "prompts": f"{found['prompts']}: {found['items']} items x {len(found['languages'])} languages "
        f"({', '.join(found['languages'])})",
        "sites": f"{sites} at {', '.join(found['positions'])}, {found['dtype']}",
        "size": f"{found['bytes'] / 1e6:.1f} MB, {shards['committed']} of {shards['planned']} shards, {lost}",
        "made": ", ".join(part for part in made if part),
        "plan": found["plan"][:16],
    }  # fmt: skip
