"""docs/ builds as a site in mkdocs' strict mode; dead links, lost pages and files from other hosts are noticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parents[2]


def make_site(site: Path, **changes: object) -> None:
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(site), strict=True, **changes))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    make_site(folder)
    return folder


def test_every_page_is_built(site: Path) -> None:
    assert {page.with_suffix(".html").name for page in (ROOT / "docs").glob("*.md")} <= {
        page.name for page in site.glob("*.html")
    }
    assert not list(site.glob("*.py"))


def test_sources_come_with_the_site(site: Path) -> None:
    assert 'href="source/contextlm/model/chunking.py.txt"' in (site / "architecture.html").read_text()
    copied = site / "source/contextlm/model/chunking.py.txt"
    assert copied.read_text() == (ROOT / "contextlm/model/chunking.py").read_text()


def test_the_site_needs_no_network(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="([^"]*)"', page.read_text())
        assert [address for address in loaded if re.match(r"(https?:)?//", address)] == [], page.name


def is_built(page: str, folder: Path) -> bool:
    """Whether a site of one page, strictly built, has nothing to warn of."""
    docs = folder / "docs"
    docs.mkdir(exist_ok=True)
    (docs / "index.md").write_text(page)
    try:
        make_site(folder / "site", docs_dir=str(docs), nav=[{"Overview": "index.md"}])
    except Abort:
        return False
    return True


def test_a_dead_link_would_be_noticed(tmp_path: Path) -> None:
    assert is_built("# Title\n\n[a source](../contextlm/model/chunking.py), [a heading](#title)\n", tmp_path)
    for link in ("gone.md", "../contextlm/gone.py", "#gone", "/gone.md"):
        assert not is_built(f"# Title\n\n[gone]({link})\n", tmp_path), link


def test_a_page_that_no_menu_shows_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/lost.md").write_text("# Lost\n")
    assert not is_built("# Title\n", tmp_path)
