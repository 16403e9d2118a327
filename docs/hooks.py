"""Hooks of the documentation site: pages from outside docs/, formulas as MathML, and names in docstrings as links."""

import html
import pathlib
import posixpath
import re

from latex2mathml import converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parent.parent
# Files of the repository that are pages of the site, too.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "notebooks/README.md": "notebooks.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside docs/."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links between files of the repository to their pages; one to a file that is no page becomes its name."""
    written = {page: path for path, page in PAGES.items()}
    path = written.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def linked(match: re.Match[str]) -> str:
        words, target, anchor = match.groups()
        if ":" in target or not target:
            return match[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        inside = PAGES.get(found, found.removeprefix("docs/"))
        if inside == found:
            if not (ROOT / found).exists():
                raise PluginError(f"{path}: a link to {target}, which does not exist")
            return words
        return f"[{words}]({posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return re.sub(r"\[([^\]]*)\]\(([^)#\s]*)((?:#[^)\s]*)?)\)", linked, markdown)


def mathml(formula: str, *, display: str) -> str:
    """LaTeX as MathML.

    Raises:
      PluginError: a command that is not known, which MathML would show as its name.
    """
    converted = converter.convert(formula, display=display)
    if "\\" in html.unescape(converted):
        raise PluginError(f"a formula that cannot be converted: {formula}")
    return converted


def cell(content: str) -> str:
    """A cell of a table that breaks where a reader would: a number stays with its interval, a long name may break."""
    content = re.sub(r" \u00b1 ", "\u00a0\u00b1\u00a0", content)
    content = re.sub(r"\[[\d.]+, [\d.]+\]", lambda match: match[0].replace(" ", "\u00a0"), content)
    return re.sub(r"(?<=<code>)[^<]+", lambda name: re.sub(r"(?<=[@=/_.])(?=\w)", "<wbr>", name[0]), content)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns formulas into MathML, and the roles of docstrings (:func:`name`) into links where the page has the name.

    Lines of a table's cell break in names and beside numbers, see :func:`cell`.
    """
    content = re.sub(r"(<t[dh][ >])(.*?)(</t[dh]>)", lambda match: match[1] + cell(match[2]) + match[3], content)
    content = re.sub(
        r'<span class="arithmatex">\\\((.*?)\\\)</span>',
        lambda match: mathml(html.unescape(match[1]), display="inline"),
        content,
        flags=re.DOTALL,
    )
    content = re.sub(
        r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>',
        lambda match: mathml(html.unescape(match[1]), display="block"),
        content,
        flags=re.DOTALL,
    )
    names = {name.rpartition(".")[2]: name for name in re.findall(r'id="(vmoe_inform[\w.]*)"', content)}

    def role(match: re.Match[str]) -> str:
        last = match[1].lstrip("~").rpartition(".")[2]
        shown = f"<code>{last if match[1].startswith('~') else match[1]}</code>"
        return f'<a href="#{names[last]}">{shown}</a>' if last in names else shown

    return re.sub(r":(?:func|class|mod|meth|attr|data|obj):<code>([^<]*)</code>", role, content)
