"""What a shell offers for a value that has begun: names that are known without a model and without torch."""

from collections.abc import Callable, Iterable

from babelscope import plugins, workflows
from babelscope.schema import SITE_KINDS
from babelscope.schema.position import POSITION_KINDS

Completer = Callable[[str], list[str]]


def plugin(kind: str) -> Completer:
    """Names of the plugins of a kind."""
    return _of(lambda: plugins.names(kind))


def one_of(*names: str) -> Completer:
    """Names that are written down."""
    return _of(lambda: names)


def _of(known: Callable[[], Iterable[str]]) -> Completer:
    def complete(incomplete: str) -> list[str]:
        return [name for name in known() if name.startswith(incomplete)]

    return complete


def _mappings() -> Iterable[str]:
    from babelscope.datasets.mapping import bundled_mappings

    return bundled_mappings()


def _presets() -> Iterable[str]:
    from babelscope.training.yaml_files import presets

    return presets()


models = _of(lambda: workflows.models())
mappings = _of(_mappings)
presets = _of(_presets)
sites = _of(lambda: SITE_KINDS)
positions = _of(lambda: POSITION_KINDS)
dtypes = one_of("auto", "float32", "float16", "bfloat16")
