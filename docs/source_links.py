"""A hook of mkdocs: the sources that pages link to become part of the site, as plain text.

Pages link to sources by their place in the checkout, `../contextlm/...`, which is outside of docs/ and so of the site.
Here the files are added to it as `source/PATH.txt`, and the links follow. A link to a source that is not there stays as
it is: mkdocs warns of it, and with --strict it fails.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\]\(\.\./([^)#\s]+)(?:#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every source that a page links to."""
    texts = [page.content_string for page in files.documentation_pages()]
    for path in sorted({path for text in texts for path in _LINK.findall(text) if (ROOT / path).is_file()}):
        files.append(File.generated(config, _place(path), content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to them."""

    def moved(link: re.Match[str]) -> str:
        place = _place(link[1])
        return f"]({place})" if files.get_file_from_path(place) else link[0]

    return _LINK.sub(moved, markdown)


def _place(path: str) -> str:
    return f"source/{path}.txt"
