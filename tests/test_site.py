"""The documentation site builds without a warning, with the API and its formulas."""

import html.parser
import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest
from mkdocs.exceptions import PluginError

from vmoe_inform import routing

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks():
    specification = importlib.util.spec_from_file_location("documentation_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Builds it as users do; a warning, such as of a link to nowhere, is an error. With --quiet it would be none."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert [line for line in built.stderr.splitlines() if not line.startswith("INFO ")] == []
    assert built.returncode == 0
    return folder


def test_every_page_of_the_repository_is_a_page_of_the_site(site, hooks):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    pages |= {pathlib.Path(page).with_suffix(".html") for page in hooks.PAGES.values()}
    assert {path.relative_to(site) for path in site.rglob("*.html")} - {pathlib.Path("404.html")} >= pages


def test_every_public_function_of_routing_is_documented(site):
    page = (site / "api" / "routing.html").read_text()
    assert set(re.findall(r'id="vmoe_inform\.routing\.(\w+)"', page)) == set(routing.__all__)


def test_formulas_are_mathml_and_roles_are_links(site):
    page = (site / "api" / "routing.html").read_text()
    assert page.count("<math") >= 20
    assert "arithmatex" not in page
    assert ":func:" not in page
    assert '<a href="#vmoe_inform.routing.token_similarity"><code>token_similarity</code></a>' in page


class _References(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("script", "img"):
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") == "stylesheet":
            self.found.append(given.get("href") or "")


def test_the_site_needs_no_network(site):
    for page in site.rglob("*.html"):
        references = _References()
        references.feed(page.read_text())
        assert [each for each in references.found if "://" in each or each.startswith("//")] == []


def test_a_formula_that_cannot_be_converted_stops_the_build(hooks):
    assert "<mi>" in hooks.mathml(r"\alpha_i", display="inline")
    with pytest.raises(PluginError, match="made"):
        hooks.mathml(r"\madeup{x}", display="inline")


def test_a_cell_breaks_in_names_and_beside_numbers(hooks):
    assert (
        hooks.cell("<code>a_vmoe@b.c=1</code> and a_b=c") == "<code>a_<wbr>vmoe@<wbr>b.<wbr>c=<wbr>1</code> and a_b=c"
    )
    assert hooks.cell("187.0 (+25.3 ± 5.7**)") == "187.0 (+25.3\u00a0±\u00a05.7**)"
    assert hooks.cell("1.07 [1.03, 1.09], 2") == "1.07 [1.03,\u00a01.09], 2"


def test_tables_can_be_read(site, browser):
    """A number stands in at most two lines, and a phone shows the verdicts of findings.md without scrolling."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((site / "language.html").as_uri())
    cells = page.locator("td[style*=right]:has-text('±')")
    assert cells.count() > 100
    lines = "cells => cells.map(cell => {const area = document.createRange(); area.selectNodeContents(cell); " + (
        "return new Set([...area.getClientRects()].map(box => Math.round(box.top / 8))).size})"
    )
    assert max(cells.evaluate_all(lines)) <= 2
    page.set_viewport_size({"width": 400, "height": 900})
    page.goto((site / "findings.html").as_uri())
    hidden = "tables => tables.map(table => table.scrollWidth - table.parentElement.clientWidth)"
    assert max(page.locator("table").evaluate_all(hidden)) <= 0
    page.close()
