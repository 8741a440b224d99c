"""The embedded models, and the verb that trains them."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from babelscope.errors import BabelScopeError, unknown_name
from babelscope.workflows.signals import Note

DEMO_MODEL = "organism"
ENCODER = "encoder-organism"


def models() -> tuple[str, ...]:
    """Names of the embedded models; each may be given wherever a model is asked for."""
    folders = (f for f in _folder().iterdir() if f.is_dir() and f.joinpath("config.json").is_file())
    return tuple(sorted(f.name.replace("_", "-") for f in folders))


def model_path(source: str) -> str:
    """Folder of an embedded model, or `source` itself for a local folder or a hub id. A local folder comes first."""
    if source in models() and not Path(source).exists():
        return str(_folder().joinpath(source.replace("-", "_")))
    return str(Path(source).expanduser()) if source.startswith("~") else source


def _folder() -> Traversable:
    # Not files("babelscope.models"): importing that package would hide the function of the same name,
    # `babelscope.models`.
    return files("babelscope").joinpath("models")


def train_organism(
    out: Path,
    *,
    kind: str = DEMO_MODEL,
    limit: int | None = None,
    seed: int = 0,
    resume: bool = False,
    note: Note = lambda _: None,
) -> Path:
    """Train an organism by its recipe and write it to the folder `out`.

    Parameters
    ----------
    kind : "organism" or "encoder-organism"
        The decoder or the encoder.
    limit : int, optional
        Most prompts of each phase, to try it out.
    resume : bool
        Continue from the newest checkpoint in `out`.

    Raises
    ------
    BabelScopeError
        If there is no such organism, or `out` exists and `resume` is not given, or the other way round.
    """
    from babelscope.training import encoder_organism, organism

    if kind not in (DEMO_MODEL, ENCODER):
        raise unknown_name("organism", kind, (DEMO_MODEL, ENCODER))
    if out.exists() != resume:
        state, hint = ("exists already", "add --resume") if out.exists() else ("does not exist", "leave out --resume")
        raise BabelScopeError(f"{out} {state}", hint)
    recipe = encoder_organism.EncoderRecipe(seed=seed) if kind == ENCODER else organism.Recipe(seed=seed)
    if limit is not None:
        recipe = recipe.shortened(limit)
    prompts = sum(phase.prompts for stage in recipe.stages for phase in stage.phases)
    note(f"{prompts:,} prompts, {recipe.layers} layers of width {recipe.width}, vocabulary {recipe.vocabulary}")
    if isinstance(recipe, encoder_organism.EncoderRecipe):
        encoder_organism.train_encoder_organism(recipe, out, resume=resume)
    else:
        organism.train_organism(recipe, out, resume=resume)
    return out
