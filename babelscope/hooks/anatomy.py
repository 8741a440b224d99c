"""The parts of a model: stacks of blocks, and in each block attention, MLP and the equation that joins them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from babelscope.errors import BabelScopeError
from babelscope.hooks.experts import Experts
from babelscope.hooks.mlp import Gate
from babelscope.hooks.place import Place
from babelscope.hooks.residual import Residual


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """One attention of a block.

    Parameters
    ----------
    module : Module
        Smallest module inside which attention is computed.
    output_projection : Module or None
        The linear that reads what attention returned.
    n_heads : int or None
        Query heads; None where tokens are mixed without a softmax over keys, as by linear attention.
    query, key, value : tuple of (int, int), or None
        Heads and dim of one token; None where the model file does not hand them over.
    is_read_unchanged : bool
        Whether the output projection reads exactly what attention gives, with no gate or norm between.
    """

    module: nn.Module
    output_projection: nn.Module | None
    n_heads: int | None
    query: tuple[int, int] | None = None
    key: tuple[int, int] | None = None
    value: tuple[int, int] | None = None
    is_read_unchanged: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The parts of one block; None for what was not found.

    Parameters
    ----------
    module : Module
        The block itself.
    attention : Attention or None
        Of the block to its own stack.
    cross_attention : Attention or None
        Of a decoder block to the encoder.
    mlp : Module or None
        What returns the sum that the MLP adds: its down projection, or a block of experts.
    down_projection : Module or None
        The linear that reads the neurons; beside experts that of the shared expert.
    experts : Experts or None
        Those that a router selects from.
    activation : Module or None
        The non-linearity of the MLP, where it is a module.
    gate : Gate or None
        What the activation is multiplied with; None where it is not.
    residual : Residual or None
        The equation that proves attention and MLP.
    """

    module: nn.Module
    attention: Attention | None = None
    cross_attention: Attention | None = None
    mlp: nn.Module | None = None
    down_projection: nn.Module | None = None
    experts: Experts | None = None
    activation: nn.Module | None = None
    gate: Gate | None = None
    residual: Residual | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """One list of blocks and what stands around it: the whole of most models, an encoder or a decoder of others.

    Parameters
    ----------
    tag : str
        "" in models with one stack, else "enc" or "dec".
    module : Module
        The transformer without its head, or the encoder or decoder within.
    embedding : Module
        What turns token ids into vectors.
    embedded : Place
        Where the tensor that block 0 reads can be taken: after positions, scaling and norms.
    layers : tuple of Layer
    final_norm : Module or None
        None in models that end with their last block, as BERT.
    width : int
        Of the residual stream.
    name : str
        Of the model's class.
    """

    tag: str
    module: nn.Module
    embedding: nn.Module
    embedded: Place
    layers: tuple[Layer, ...]
    final_norm: nn.Module | None
    width: int
    name: str

    @property
    def missing(self) -> dict[str, tuple[int, ...]]:
        """Part -> layers where it was not found, for parts that are missing anywhere.

        A layer needs a down projection or experts; some have both.
        """
        found: dict[str, list[int]] = {}
        for i, layer in enumerate(self.layers):
            either = ("experts",) if layer.experts is None else ("down projection", "activation module")
            for part in [p for p in _missing(layer) if p not in either]:
                found.setdefault(part, []).append(i)
        return {part: tuple(layers) for part, layers in found.items()}

    def require(self, site: str, layer: int, *parts: str) -> Layer:
        """The layer, if it has all the parts that a site needs.

        Raises
        ------
        BabelScopeError
            Naming the parts that were not found.
        """
        absent = [p for p in parts if p in _missing(self.layers[layer])]
        if absent:
            raise BabelScopeError(
                f"site {site}@{layer}: in layer {layer} of {self.name} these parts were not found: {', '.join(absent)}",
                self._instead(site, layer, parts),
            )
        return self.layers[layer]

    def _instead(self, site: str, layer: int, parts: Collection[str]) -> str:
        name = f"{self.tag}.{site}" if self.tag else site
        having = [i for i, other in enumerate(self.layers) if not set(parts) & set(_missing(other))]
        if having:
            return f"these layers have it: {name}@{','.join(map(str, having))}"
        if self.layers[layer].experts is not None and site.startswith("mlp."):
            return "the neurons of this layer belong to experts: moe.neurons, with moe.expert and moe.weight"
        return "leave the site out; resid.pre and resid.post exist in every model"


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """The parts of a model.

    Parameters
    ----------
    model : PreTrainedModel
    body : Module
        The transformer without its head.
    stacks : mapping
        Tag -> Stack: "" alone, or "enc" and "dec".
    unembedding : Module or None
    """

    model: PreTrainedModel
    body: nn.Module
    stacks: Mapping[str, Stack]
    unembedding: nn.Module | None

    @property
    def name(self) -> str:
        """The class of the model."""
        return type(self.model).__name__

    @property
    def output_stack(self) -> Stack:
        """The stack that the unembedding reads: the only one, or the decoder."""
        return self.stacks["dec" if "dec" in self.stacks else ""]


def _missing(layer: Layer) -> list[str]:
    attention, residual = layer.attention, layer.residual
    present: dict[str, object] = {
        "attention": attention,
        "output projection": attention and attention.output_projection,
        "attention heads": attention and attention.n_heads,
        "an equation that proves attention": residual,
        "down projection": layer.down_projection,
        "experts": layer.experts,
        "activation module": layer.activation,
        "an equation that proves the MLP": residual if residual and residual.form != "attention" else None,
    }
    if layer.cross_attention is not None:
        present["output projection to the encoder"] = layer.cross_attention.output_projection
    return [part for part, found in present.items() if found is None]
