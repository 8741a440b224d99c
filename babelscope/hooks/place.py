"""Where a tensor passes: the input or the output of a module, or the inside of attention, and how to read it there."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from babelscope.hooks import experts
from babelscope.hooks.experts import ExpertsEnd
from babelscope.hooks.interior import INTERIOR, Interior, Listener, listening_inside
from babelscope.hooks.mass import Reduction

K = TypeVar("K")


class Place(NamedTuple):
    """One end of a module, or a tensor inside an attention module (see `interior`)."""

    module: nn.Module
    end: Literal["input", "output"] | ExpertsEnd | Interior

    @property
    def is_inside(self) -> bool:
        """Whether no module ends here, so that attention itself has to be listened to."""
        return self.end in INTERIOR


class Stop(Exception):  # noqa: N818 - not an error: everything asked for has been seen
    """Ends a forward pass that nobody reads any further."""


def entering(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The tensor that enters a module: its first argument, or `hidden_states` where that is passed by name."""
    value: Tensor = args[0] if args else kwargs["hidden_states"]
    return value


def leaving(output: Any) -> Tensor:
    """The tensor that leaves a module; BLOOM and T5 blocks return it first in a tuple, GPT in a list."""
    value: Tensor = output[0] if isinstance(output, tuple | list) else output
    return value


def by_prompt(x: Tensor, mask: Tensor) -> Tensor:
    """(prompt, token, *unit), also where a model runs its MLP on one long list of tokens, as OPT does.

    Longformer pads prompts to whole windows, on the right as we do; what it added is left out.
    """
    if x.shape[:2] == mask.shape:
        return x
    if x.shape[0] == len(mask) and x.ndim > 2 and x.shape[0] != mask.numel() and x.shape[1] > mask.shape[1]:
        return x[:, : mask.shape[1]]
    return x.reshape(*mask.shape, *x.shape[1:])


@contextmanager
def tapped(
    places: Mapping[K, Place],
    keep: Callable[[K, Tensor], None],
    stop_at: Place | None = None,
    *,
    model: PreTrainedModel | None = None,
    reductions: Mapping[K, Reduction] | None = None,
) -> Iterator[None]:
    """Call `keep(key, tensor)` whenever a tensor passes one of the places; every hook is gone on leaving.

    Parameters
    ----------
    places : mapping
        Key -> Place.
    keep : callable
        Must copy what it wants to hold on to: some models go on to change their tensors in place.
    stop_at : Place, optional
        The forward pass is ended here, after `keep`; the `Stop` it raises does not leave this context.
    model : PreTrainedModel, optional
        The model that the modules belong to; needed for places inside attention.
    reductions : mapping, optional
        Key -> how attention is reduced, for the places that end in `mass`.
    """
    inside = [
        (place.module, Listener(place.end, partial(keep, key), (reductions or {}).get(key)))
        for key, place in places.items()
        if place.is_inside
    ]

    def stop(_: Tensor) -> None:
        raise Stop

    with ExitStack() as stack:
        for key, place in places.items():
            if not place.is_inside:
                stack.callback(_listen(place, partial(keep, key)).remove)
        if inside:
            assert model is not None, "places inside attention are reached through the model"
            stack.enter_context(listening_inside(model, inside))
        if stop_at is not None:
            stack.callback(_listen(stop_at, stop).remove)
        try:
            yield
        except Stop:
            if stop_at is None:
                raise


def _listen(place: Place, action: Callable[[Tensor], None]) -> RemovableHandle:
    # The hooks return None, whatever the action returns: what a hook returns replaces the module's tensor.
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        action(entering(args, kwargs))

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        action(leaving(output))

    if place.end in experts.ENDS:
        return experts.listen(place.module, place.end, action)
    if place.end == "input":
        return place.module.register_forward_pre_hook(before, with_kwargs=True)
    return place.module.register_forward_hook(after)
