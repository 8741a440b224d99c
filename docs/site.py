"""What mkdocs is told beside mkdocs.yml, and the index pages of folders: `python docs/site.py` writes them.

A folder in the navigation stands for its pages, `CHANGELOG.md` is a page, and nothing is fetched from elsewhere.
"""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
# A single expression over a page: scripts, pictures, style sheets and icons by an address of elsewhere.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b[^>]*\brel=["']?(?:stylesheet|preconnect|icon)[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|<link\b[^>]*\bhref=["']?(?:https?:)?//[^>]*\brel=["']?(?:stylesheet|preconnect|icon)"""
)
# Pages that stand elsewhere in the repository: links to them hold on a git host, and on the site.
ELSEWHERE = {
    "changelog.md": "CHANGELOG.md",
    "organism.md": "babelscope/models/organism/README.md",
    "encoder-organism.md": "babelscope/models/encoder_organism/README.md",
}
INDEXED = ("concepts", "decisions", "errors", "metrics")


def pages(folder: str) -> list[str]:
    """Pages of a folder, as mkdocs names them: its index first, then by name."""
    stems = sorted(path.stem for path in (DOCS / folder).glob("*.md"))
    return [f"{folder}/{stem}.md" for stem in sorted(stems, key=lambda stem: stem != "index")]


def title(page: Path) -> str:
    """The first heading of a page."""
    return page.read_text("utf-8").partition("# ")[2].partition("\n")[0]


def index(folder: str) -> str:
    """The index page of a folder: what stands above its list is kept, the list is that of its pages."""
    above = (DOCS / folder / "index.md").read_text("utf-8").partition("\n- [")[0].rstrip()
    listed = [f"- [{title(DOCS / page)}]({Path(page).name})" for page in pages(folder)[1:]]
    return above + "\n\n" + "\n".join(listed) + "\n"


def on_config(config: Any) -> Any:
    """Replace folders in the navigation by their pages."""

    def whole(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {name: whole(inner) for name, inner in entry.items()}
        if isinstance(entry, list):
            return [whole(inner) for inner in entry]
        return [named(page) for page in pages(entry.rstrip("/"))] if entry.endswith("/") else entry

    def named(page: str) -> Any:
        # What is typed behind --metric and --recipe, where a title would be cut off.
        stem = Path(page).stem
        return {stem: page} if page.startswith("metrics/") and stem != "index" else page

    config.nav = whole(config.nav)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Take in the pages that stand elsewhere in the repository."""
    from mkdocs.structure.files import File

    for name, path in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(DOCS.parent / path).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links that leave the folder of the documentation to the same pages on the site."""
    for name, path in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{path})", f"]({name})")
    return markdown


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that a reader without a network would see in part."""
    from mkdocs.exceptions import PluginError

    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} fetches from elsewhere: {output[found.start() : found.end() + 60]}")
    return output


if __name__ == "__main__":
    for name in INDEXED:
        (DOCS / name / "index.md").write_text(index(name), "utf-8")
