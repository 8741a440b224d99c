"""A planted store whose every text is hostile, and its report; no model is needed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from babelscope.workflows import Analysis, analyze
from tests.analyses.planted import activations, write_store

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 1'>",
    "\"quotes\" & 'apostrophes' \\u003c \u2028 \u2029 </pre>",
    "{{ 7 * 7 }} ]]> <!-- <svg onload=alert(1)>",
    "javascript:window.hacked=1 \u202egnp.exe\u2066 \x1b[2J",
)
ITEMS = (" ".join(HOSTILE), *(f"{HOSTILE[i % 5]}{i}" for i in range(1, 16)))
FREE, KNOWLEDGE = "knowledge-free", "knowledge</script><b>\u2028"
DEMANDS = tuple(FREE if i < 8 else KNOWLEDGE for i in range(16))
SWEEP = {"threshold": (0.2, 0.4, 0.6, 0.8)}


@pytest.fixture(scope="session")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    rng = np.random.default_rng(5)
    values = {
        "resid.post": np.stack([activations(rng, 3, 16, 24, shared=s) for s in (0.5, 1.0, 2.0)]),
        "mlp.act": np.stack([activations(rng, 3, 16, 24, shared=s) for s in (0.5, 1.0, 2.0)]),
    }
    path = tmp_path_factory.mktemp("planted") / "<b>run<b>.acts"
    store = write_store(path, values, demand=DEMANDS, items=ITEMS)
    return analyze(store, ("cs", "nao"), sweep=SWEEP)


@pytest.fixture(scope="session")
def report(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return analysis.report(tmp_path_factory.mktemp("report") / "report.html")


@contextmanager
def opened(report: Path, **context: object) -> Iterator[object]:
    """A report in a browser without a network, and in `complaints` what the browser said and asked for."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine; CI has one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_context(offline=True, **context).new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.complaints.append(request.url))
        page.goto(report.as_uri(), timeout=300_000)
        page.wait_for_function(
            "document.documentElement.dataset.drawn == document.querySelectorAll('figure').length", timeout=300_000
        )
        yield page
        browser.close()
