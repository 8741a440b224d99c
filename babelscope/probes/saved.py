"""Fitted probes on disk: arrays and JSON, with the fingerprint of the store that they were fitted on."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babelscope.errors import BabelScopeError, unknown_name
from babelscope.probes.grid import basis_of, standards
from babelscope.probes.probe import Codes, Floats, Layers, Probe

ARRAYS, ABOUT = "probes.npz", "probes.json"
FORMAT = 1

# Where a probe was fitted: site with layer, position, language ("*" for all at once).
Place = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class FittedProbe:
    """A probe of one site, layer, position and language, with how its rows were standardized.

    Parameters
    ----------
    mean, scale : ndarray of float64
        (dim,) of the training rows.
    layers : Layers
    """

    mean: Floats
    scale: Floats
    layers: Layers

    def scores(self, X: NDArray[np.generic]) -> Floats:
        """Scores (..., class) of rows (..., dim); the largest is the prediction.

        Raises
        ------
        BabelScopeError
            If the rows have another number of dimensions.
        """
        values = np.asarray(X, np.float64)
        if values.shape[-1] != len(self.mean):
            raise BabelScopeError(
                f"the probe reads {len(self.mean)} dimensions, the rows have {values.shape[-1]}",
                "select the site and layer that it was fitted on",
            )
        found = self.layers.scores((values.reshape(-1, len(self.mean)) - self.mean) / self.scale)
        return found.reshape(*values.shape[:-1], -1)

    def predict(self, X: NDArray[np.generic]) -> Codes:
        """Predicted class (...) of rows (..., dim)."""
        return np.asarray(self.scores(X).argmax(axis=-1), np.int64)


def fitted_probe(X: NDArray[np.generic], labels: Codes, n_classes: int, probe: Probe) -> FittedProbe:
    """A probe fitted on all rows (row, dim), labels (row,); for use on other items, not to be scored on these."""
    values = np.asarray(X, np.float64)
    mean, scale = standards(values)
    train = (values - mean) / scale
    basis = basis_of(train, probe)
    if basis is None:
        return FittedProbe(mean, scale, probe.fit(train, labels, n_classes))
    layers = probe.fit(train @ basis, labels, n_classes)
    return FittedProbe(mean, scale, Layers((basis @ layers.weights[0], *layers.weights[1:]), layers.biases))


@dataclass(frozen=True, slots=True)
class FittedProbes:
    """All probes of one target.

    Parameters
    ----------
    classes : tuple of str
        What the predictions stand for.
    about : mapping
        Target, probe and its parameters, store fingerprint, model, version.
    probes : mapping
        (site, position, language) -> probe.
    """

    classes: tuple[str, ...]
    about: Mapping[str, Any]
    probes: Mapping[Place, FittedProbe]

    def at(self, site: str, position: str, language: str) -> FittedProbe:
        """The probe of a site such as `resid.post@3`, a position and a language.

        Raises
        ------
        BabelScopeError
            If there is none.
        """
        if (site, position, language) not in self.probes:
            for asked, known, what in zip(
                (site, position, language),
                zip(*self.probes, strict=True),
                ("site", "position", "language"),
                strict=True,
            ):
                if asked not in known:
                    raise unknown_name(f"{what} of these probes", asked, dict.fromkeys(known))
        return self.probes[site, position, language]

    def save(self, folder: Path) -> list[Path]:
        """Write `probes.npz` and `probes.json`; return the paths written."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for k, fitted in enumerate(self.probes.values()):
            arrays |= {f"{k}/mean": fitted.mean, f"{k}/scale": fitted.scale}
            for j, (weight, bias) in enumerate(zip(fitted.layers.weights, fitted.layers.biases, strict=True)):
                arrays |= {f"{k}/weight_{j}": weight, f"{k}/bias_{j}": bias}
        places = [list(place) for place in self.probes]
        about = {"format": FORMAT, "classes": self.classes, "places": places, "about": dict(self.about)}
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        (folder / ARRAYS).write_bytes(buffer.getvalue())
        (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8")
        return [folder / ARRAYS, folder / ABOUT]


def load_probes(folder: str | Path) -> FittedProbes:
    """Read what `FittedProbes.save` wrote; nothing in the files is executed.

    Raises
    ------
    BabelScopeError
        If a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        with (folder / ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if about["format"] != FORMAT:
                raise BabelScopeError(
                    f"{folder / ABOUT}: format {about['format']}, known is {FORMAT}", "update BabelScope"
                )
            probes = {tuple(place): _probe(arrays, k) for k, place in enumerate(about["places"])}
    except FileNotFoundError as error:
        raise BabelScopeError(f"{error.filename}: no such file", "run `cli.py probe STORE` first") from None
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise BabelScopeError(f"{folder}: holds no readable probes: {error}", "fit them again") from None
    return FittedProbes(tuple(about["classes"]), about["about"], probes)


def _probe(arrays: Mapping[str, Floats], k: int) -> FittedProbe:
    depth = sum(name.startswith(f"{k}/weight_") for name in arrays)
    weights = tuple(arrays[f"{k}/weight_{j}"] for j in range(depth))
    biases = tuple(arrays[f"{k}/bias_{j}"] for j in range(depth))
    if not depth or weights[0].shape[0] != len(arrays[f"{k}/mean"]):
        raise ValueError(f"probe {k} is incomplete")
    return FittedProbe(arrays[f"{k}/mean"], arrays[f"{k}/scale"], Layers(weights, biases))
