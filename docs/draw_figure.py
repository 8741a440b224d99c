"""Draws docs/demo.png, the figure of the README, from the tables that `make demo` wrote."""

import sys
from pathlib import Path
from typing import Any, cast

import altair as alt

import babelscope as bs

SHOWN = ("CS, centered: by layer", "NAO, overlap: against the threshold")


def main(demo: Path) -> None:
    """Write the two headline figures of a demo folder as one picture beside this script."""
    analysis = bs.load_analysis(demo / "run.acts", demo / "tables")
    drawn = {figure.title: figure.chart for figure in analysis.figures()}
    charts = [cast(Any, drawn[title]).properties(title=title) for title in SHOWN]
    picture = alt.vconcat(*charts).resolve_scale(color="independent", strokeDash="independent")
    picture.save(Path(__file__).with_name("demo.png"), scale_factor=1.5)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
