"""The report: one file, everything escaped, every figure drawn."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from babelscope.errors import BabelScopeError
from babelscope.schema import Result
from babelscope.workflows import Analysis, analyze, check_report
from babelscope.workflows import report as report_of
from tests.analyses.planted import activations, write_store
from tests.reports.conftest import FREE, HOSTILE, KNOWLEDGE, opened

# Three megabytes open at once in any browser; the Vega runtime is a third of that.
MOST_BYTES = 3_000_000


class Elements(HTMLParser):
    """Names and attributes of all elements, and the text of all preformatted ones."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.around: list[tuple[str, str]] = []  # each text and the element right around it
        self._open: list[str] = []
        self._is_pre = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br", "link"}:
            self._open.append(tag)
        self.found.append((tag, dict(attrs)))
        self._is_pre = tag == "pre"
        if self._is_pre:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag  # also that no text closes what it did not open

    def handle_data(self, data: str) -> None:
        self.around.append((data, self._open[-1] if self._open else ""))
        if self._is_pre:
            self.texts[-1] += data


@pytest.fixture(scope="module")
def elements(report: Path) -> Elements:
    parser = Elements()
    parser.feed(report.read_text("utf-8"))
    return parser


def test_is_one_file_of_bounded_size_beside_its_numbers(report: Path) -> None:
    assert report.stat().st_size < MOST_BYTES
    assert {p.name for p in report.parent.iterdir()} == {"report.html", "report.json", "report.figures"}


def test_names_nothing_outside_itself(elements: Elements) -> None:
    for tag, attributes in elements.found:
        assert tag not in {"iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    policy = next(a["content"] for t, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_holds_no_element_that_a_text_brought_along(elements: Elements) -> None:
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 2  # the Vega runtime, and our own
    assert {"img", "svg", "b"}.isdisjoint(tags)
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)


def test_shows_hostile_prompts_as_they_are(elements: Elements) -> None:
    assert f"{' '.join(HOSTILE)} in en" in [text.rstrip("\n") for text in elements.texts]


@pytest.mark.parametrize("evil", ["</script>", "onerror", "javascript:", "\u202e", "\x1b"])
def test_report_escapes(elements: Elements, evil: str) -> None:
    assert not any(evil in f"{tag} {attributes}" for tag, attributes in elements.found)
    around = {tag for text, tag in elements.around if evil in text} - {"script"}  # Vega says onerror itself
    # Blocks, cells and <bdi>: a text that turns the direction around turns it for itself alone.
    assert {"pre", "bdi"} <= around <= {"pre", "bdi", "td", "th", "figcaption", "p"}


def test_no_specification_can_end_its_script(report: Path) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", report.read_text("utf-8"), re.DOTALL)
    ours = scripts[-1]
    assert "vegaEmbed(" in ours
    assert "<" not in ours
    assert "\u2028" not in ours


def test_shows_the_number_of_every_row_of_the_headline(analysis: Analysis, report: Path) -> None:
    text = report.read_text("utf-8")
    rows = analysis.headline()
    # Two metrics (cs raw, centered and zscored, nao), two groups and their contrast.
    assert len(rows) == 12
    assert set(rows["threshold"].dropna()) == {0.4}
    for gap in rows["gap"]:
        assert f"<td>{gap:.3f}</td>" in text


def test_shows_contrasts_and_sweeps_as_tables(report: Path) -> None:
    text = report.read_text("utf-8")
    for title in (
        "contrast: over all layers",
        "sweep summary: over all layers",
        "nao: by layer",
        "cs: by language pair",
    ):
        assert f"<summary>{title} (" in text
    assert "conclusion_stability" in text


def test_a_site_without_layers_has_a_report_too(tmp_path: Path) -> None:
    embedding = activations(np.random.default_rng(0), 3, 8, 12, shared=1.0)[None]
    analysis = analyze(write_store(tmp_path / "embed.acts", {"embed": embedding}), "cs")
    text = analysis.report(tmp_path / "report.html").read_text("utf-8")
    assert "cs: by language pair (" in text
    assert "cs: by layer (" not in text  # there is none, and an empty table would say nothing
    assert set(analysis.headline()["site"]) == {"embed"}


def test_a_failed_report_leaves_the_old_one(
    analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Exception, match="cannot be written: No space left"):
        analysis.report(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def drawn(report: Path) -> Iterator[object]:
    with opened(report) as page:
        yield page


def test_every_figure_is_drawn_in_a_browser_that_finds_nothing_to_complain_about(drawn: object, report: Path) -> None:
    assert drawn.complaints == [report.as_uri()]
    marks = drawn.evaluate(
        "[...document.querySelectorAll('figure')].map(f => f.querySelectorAll('.role-mark path').length)"
    )
    # By layer: cs in three variants, nao overlap, and the two published ones; thresholds: overlap, macro-layer, pooled,
    # and the first two by layer; language pairs: cs three times, nao once.
    assert len(marks) == 15
    assert min(marks) >= 6
    titles = drawn.evaluate("[...document.querySelectorAll('.role-axis-title text')].map(t => t.textContent)")
    assert {"layer", "similarity", "threshold", "overlap", "gap over the null", "language"} <= set(titles)
    assert drawn.evaluate("window.hacked") is None


def test_groups_stand_side_by_side_on_one_scale(drawn: object) -> None:
    figure = "document.querySelector('figure')"
    heads = drawn.evaluate(f"[...{figure}.querySelectorAll('.column_header text')].map(t => t.textContent)")
    assert heads == [FREE, KNOWLEDGE.strip("\u2028")]
    # One axis of similarity for both: a curve that looks higher is higher.
    axes = drawn.evaluate(f"[...{figure}.querySelectorAll('.role-axis-title text')].map(t => t.textContent)")
    assert axes.count("similarity") == 1


def test_what_a_provenance_leaves_undefined_is_null_in_the_numbers(analysis: Analysis, tmp_path: Path) -> None:
    changed = tuple(replace(r, provenance={**r.provenance, "width": [float("nan")]}) for r in analysis.results)
    path = Analysis(analysis.store, changed).report(tmp_path / "report.html")
    results = json.loads(path.with_suffix(".json").read_text("utf-8"))["sources"][0]["results"]
    assert results["cs"]["provenance"]["width"] == [None]


def test_a_file_in_the_place_of_the_figures_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "report.figures").write_text("mine")
    with pytest.raises(BabelScopeError, match="is a file, a folder was expected"):
        check_report(tmp_path / "report.html", overwrite=True)


def test_a_store_that_allows_no_comparison_has_its_card(tmp_path: Path) -> None:
    values = activations(np.random.default_rng(0), 1, 8, 12, shared=1.0)[None]
    store = write_store(tmp_path / "one.acts", {"resid.post": values}, languages=("en",))
    notes: list[str] = []
    page = report_of([store.path], tmp_path / "report.html", note=notes.append)
    assert notes[-1].endswith("is not analyzed: one language cannot be compared")
    assert "Nothing was tested yet." in page.read_text("utf-8")


def test_tables_of_a_comparison_are_refused_with_the_reason(analysis: Analysis, tmp_path: Path) -> None:
    Result("change", analysis["cs"].table, {}).save(tmp_path / "run.acts.comparison")
    with pytest.raises(BabelScopeError, match="are of no single store"):
        report_of([analysis.store.path, tmp_path / "run.acts.comparison"], tmp_path / "report.html")
