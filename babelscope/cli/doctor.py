"""`babelscope doctor`: what was found in a model, and whether it is what its name says."""

import json
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import (
    Adapter,
    Anatomy,
    Attention,
    Device,
    DeviceMap,
    Dtype,
    MergeAdapter,
    Quantize,
    Revision,
    TrustRemoteCode,
)
from babelscope.errors import BabelScopeError


def run(
    model: Annotated[str, typer.Argument(help="Local folder, hub id, or embedded model (cli.py ls models).")],
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    attention: Attention = None,
    adapter: Adapter = None,
    merge_adapter: MergeAdapter = False,
    trust_remote_code: TrustRemoteCode = False,
    anatomy: Anatomy = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the parts of MODEL, the errors of the laws that prove them, and the self-test; exit 1 if any fails."""
    found = workflows.doctor(
        model, revision=revision, dtype=dtype, device=device, device_map=device_map, quantize=quantize,
        attn_implementation=attention, adapter=adapter, merge_adapter=merge_adapter,
        trust_remote_code=trust_remote_code, anatomy=anatomy,
    )  # fmt: skip
    print(json.dumps(found.to_json(), ensure_ascii=False) if as_json else found)
    if found.problems:
        raise BabelScopeError(
            f"{found.architecture}: {found.problems[0]}",
            "sites that are listed can be captured; name missing parts in a file (--anatomy, see docs/anatomy.md)"
            if found.laws
            else "the self-test failed, so no site was proven: a capture is refused as long as it fails",
        )
