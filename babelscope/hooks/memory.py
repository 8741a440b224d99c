"""Where memory ends: what allocators say, and running in halves what can be halved."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from babelscope.errors import BabelScopeError

Part = TypeVar("Part")
Found = TypeVar("Found")

# The allocator for a CPU raises a plain RuntimeError, with other words on each system; so do Apple's MPS and cuBLAS.
_HOST = ("DefaultCPUAllocator", "bad_alloc")
_DEVICE = ("CUDA error: out of memory", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on the host or on a device."""
    return _whose(error) != ""


def _whose(error: Exception) -> str:
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in text for word in _HOST)):
        return "host"
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    return "device" if isinstance(error, RuntimeError) and any(word in text for word in _DEVICE) else ""


@contextmanager
def enough_memory(purpose: str, hint: str) -> Iterator[None]:
    """Inside, an allocation that fails is one problem and one hint; it works as a decorator as well.

    Parameters
    ----------
    purpose : str
        What memory is needed for, as "the rows of a block".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise BabelScopeError(f"the memory of the {_whose(error)} does not suffice for {purpose}", hint) from error


def in_halves(
    run: Callable[[Sequence[Part]], Found],
    parts: Sequence[Part],
    told: Callable[[int], None],
    refused: Callable[[Part], BabelScopeError],
) -> Iterator[Found]:
    """What `run` gives for all parts together, or for halves of them where the memory does not suffice.

    Parameters
    ----------
    told : callable
        Told the number of parts that are going to be halved.
    refused : callable
        A part that does not fit by itself -> the error to raise.
    """
    found: list[Found] = []
    try:
        found.append(run(parts))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # Outside of `except`, which would hold on to the tensors of the failed pass.
    if found:
        yield from found
        return
    half = len(parts) // 2
    if not half:
        raise refused(parts[0])
    told(len(parts))
    torch.cuda.empty_cache()  # nothing where no CUDA is in use
    yield from in_halves(run, parts[:half], told, refused)
    yield from in_halves(run, parts[half:], told, refused)
