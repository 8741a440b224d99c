"""Runs a notebook in a kernel of its own; a file for each, so that they are run side by side."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

# The kernel's own machinery leaves sockets to the garbage collector.
QUIET = ("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning")


def run(name: str, folder: Path) -> None:
    """Run a notebook from top to bottom in a folder: it shows a figure and writes a report."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs"), "clear the outputs before committing"
        assert cell.get("execution_count") is None, "clear the outputs before committing"
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("vega-lite" in str(output.get("data", {})) for output in outputs), "no figure was shown"
    assert (folder / f"{name}.html").stat().st_size > 100_000
