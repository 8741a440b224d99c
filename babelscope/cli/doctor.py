"""`babelscope doctor`: what was found in a model, and whether it is what its name says."""

from babelscope import workflows
from babelscope.cli.options import (
    Adapter,
    Anatomy,
    AsJson,
    Attention,
    Device,
    DeviceMap,
    Dtype,
    MergeAdapter,
    Model,
    Quantize,
    Revision,
    TrustRemoteCode,
)
from babelscope.cli.printing import show
from babelscope.errors import BabelScopeError


def run(
    model: Model,
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
    as_json: AsJson = False,
) -> None:
    """Print the parts of a model, and the laws that prove them.

    Then the self-test of a capture. Exit code 1 if anything fails.
    """
    found = workflows.doctor(
        model, revision=revision, dtype=dtype, device=device, device_map=device_map, quantize=quantize,
        attn_implementation=attention, adapter=adapter, merge_adapter=merge_adapter,
        trust_remote_code=trust_remote_code, anatomy=anatomy,
    )  # fmt: skip
    show(found, found, as_json=as_json)
    if found.problems:
        raise BabelScopeError(
            f"{found.architecture}: {found.problems[0]}",
            "sites that are listed can be captured; name missing parts in a file (--anatomy, see docs/anatomy.md)"
            if found.laws
            else "the self-test failed, so no site was proven: a capture is refused as long as it fails",
        )
