"""Libraries that a capture can do without: imported when they are asked for, never before."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from packaging.version import Version

from babelscope.errors import BabelScopeError


def import_extra(module: str, distribution: str, minimum: str, *, extra: str) -> ModuleType:
    """Import a module of an optional distribution.

    Parameters
    ----------
    minimum : str
        Lowest version whose behavior was tested, as `pyproject.toml` says.
    extra : str
        The extra of BabelScope that installs it.

    Raises
    ------
    BabelScopeError
        If it is not installed, is too old, or cannot be imported; the hint is the pip command.
    """
    hint = f"pip install 'babelscope[{extra}]'"
    try:
        found = version(distribution)
    except PackageNotFoundError:
        raise BabelScopeError(f"{distribution} is not installed", hint) from None
    if Version(found) < Version(minimum):
        raise BabelScopeError(f"{distribution} {found} is installed, {minimum} or newer is needed", hint)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BabelScopeError(f"{distribution} {found} cannot be imported: {error}", hint) from error
