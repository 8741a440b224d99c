"""What was found of a model, as words: which module is which part, in how many layers, and what is missing why."""

from dataclasses import dataclass

from torch import nn

from babelscope.hooks.anatomy import Anatomy, Layer, Stack
from babelscope.hooks.residual import Residual

WHY = {
    "attention": "no softmax over keys was seen and no linear reads a mixture of tokens",
    "output projection": "no linear to the residual width reads what attention gave",
    "attention heads": "tokens are mixed without a softmax over keys, so attn.heads does not exist",
    "an equation that proves attention": "the stream behind attention is not the stream before it plus attn.out",
    "down projection": "neither an activation's output nor a linear that an equation proves was found",
    "experts": "no experts behind transformers' ExpertsInterface were found",
    "activation module": "the non-linearity is a function, not a module, so mlp.act does not exist; mlp.neurons does",
    "an equation that proves the MLP": "what attention and the MLP give does not add up to resid.post",
    "output projection to the encoder": "no linear to the residual width reads what attention to the encoder gave",
}
# Models can do without these: their sites are refused, everything else is proven.
OPTIONAL = frozenset({"activation module", "attention heads"})


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a model.

    Parameters
    ----------
    stack : str
        "", "enc" or "dec".
    name : str
    path : str
        Module path in the last layer that has the part; "" where none has it.
    n_found, n_layers : int
        Layers that have it, of how many; 1 of 1 for what exists once.
    """

    stack: str
    name: str
    path: str
    n_found: int
    n_layers: int


def parts_of(anatomy: Anatomy) -> tuple[Part, ...]:
    """Every part of every stack."""
    names = {id(m): name for name, m in anatomy.model.named_modules()}
    return tuple(part for stack in anatomy.stacks.values() for part in _parts(stack, names))


def _parts(stack: Stack, names: dict[int, str]) -> list[Part]:
    n = len(stack.layers)
    found = [
        Part(stack.tag, "embedding", names.get(id(stack.embedding), ""), 1, 1),
        Part(stack.tag, "embed taken at", f"{stack.embedded.end} of {names.get(id(stack.embedded.module), '')}", 1, 1),
        Part(stack.tag, "layers", names.get(id(stack.layers[0].module), "").rpartition(".")[0], n, n),
    ]
    for name in _modules(stack.layers[0]):
        having = [m for layer in stack.layers if (m := _modules(layer)[name]) is not None]
        if having or name not in ("cross-attention", "its output projection", "experts"):
            found.append(Part(stack.tag, name, names.get(id(having[-1]), "") if having else "", len(having), n))
    norm = stack.final_norm
    found.append(Part(stack.tag, "final norm", names.get(id(norm), "") if norm else "", int(norm is not None), 1))
    forms = [_form(layer.residual) for layer in stack.layers]
    kinds = list(dict.fromkeys(f for f in forms if f))
    found.append(Part(stack.tag, "residual", "; ".join(kinds), sum(map(bool, forms)), n))
    return found


def _modules(layer: Layer) -> dict[str, nn.Module | None]:
    attention, cross = layer.attention, layer.cross_attention
    return {
        "attention": attention.module if attention else None,
        "output projection": attention.output_projection if attention else None,
        "cross-attention": cross.module if cross else None,
        "its output projection": cross.output_projection if cross else None,
        "MLP output": layer.mlp,
        "down projection": layer.down_projection,
        "activation": layer.activation,
        "experts": layer.experts.module if layer.experts else None,
    }


def _form(residual: Residual | None) -> str:
    if residual is None:
        return ""
    scales = [residual.attention_scale, residual.mlp_scale]
    form = residual.form if residual.end is None else f"{residual.form}, and more after the MLP"
    return form + (f" x {scales[0]:.4g}, {scales[1]:.4g}" if scales != [1.0, 1.0] else "")


def notes_of(anatomy: Anatomy) -> tuple[str, ...]:
    """What is missing where, and why."""
    notes = []
    for tag, stack in anatomy.stacks.items():
        for part, layers in stack.missing.items():
            where = "in every layer" if len(layers) == len(stack.layers) else f"in layers {', '.join(map(str, layers))}"
            notes.append(f"{f'{tag}: ' if tag else ''}{part} {where}: {WHY[part]}")
    return tuple(notes)


def unproven(anatomy: Anatomy) -> tuple[str, ...]:
    """Parts that some layer lacks and that a complete anatomy has, as `dec: attention`."""
    return tuple(
        f"{f'{tag}: ' if tag else ''}{part}"
        for tag, stack in anatomy.stacks.items()
        for part in stack.missing
        if part not in OPTIONAL
    )
