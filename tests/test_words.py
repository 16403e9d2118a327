"""Prose is for readers who skim: sentences of at most 25 words, in the field's terms (CONTRIBUTING.md, "Words")."""

import ast
import functools
import json
import pathlib
import re
import tokenize
from collections.abc import Iterable, Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "notebooks" / "README.md"])
MODULES = sorted([*(ROOT / "vmoe_inform").rglob("*.py"), *(ROOT / "configs").rglob("*.py")])
MOST_WORDS = 25
# What reads as translated, and what to write instead.
BANNED = {
    r"so many": "N steps",
    r"go(es)? on": "resume, continue",
    r"hears?": "attend to, mix",
    r"the wish to": "the signal",
    r"as far as": "where",
    r"in effect": "",
    r"beside": "compared with, next to",
}
# A full stop after these ends no sentence.
ABBREVIATIONS = r"(?<!\be\.g)(?<!\bi\.e)(?<!\bSec)(?<!\bEq)(?<!\bEqs)(?<!\bFig)(?<!\bcf)(?<!\bvs)(?<!\bal)"


def blocks_of_markdown(text: str) -> Iterator[str]:
    """Paragraphs, list items, headings and table cells, without code blocks and formulas of their own."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for block in re.split(r"\n\s*\n", text):
        if all(line.startswith("    ") for line in block.splitlines()):
            continue  # indented code
        if block.lstrip().startswith("|"):
            for line in block.splitlines():
                yield from line.strip(" |").split("|")
        else:
            yield from re.split(r"^\s*(?:[-*]|\d+\.|#+|:::) ", block, flags=re.MULTILINE)


def sentences(block: str) -> Iterator[str]:
    block = re.sub(r"(:\w+:)?``?[^`]+``?", "`code`", " ".join(block.split()))
    block = re.sub(r"\$[^$]+\$", "formula", block)
    yield from re.split(rf"{ABBREVIATIONS}[.!?]\)?\*{{0,2}} +(?=[\"'(\[*]{{0,3}}[A-Z`\d])", block)


def number_of_words(sentence: str) -> int:
    return sum(1 for word in sentence.split() if re.search(r"\w", word))


def long_sentences(blocks: Iterable[str]) -> list[str]:
    return [each for block in blocks for each in sentences(block) if number_of_words(each) > MOST_WORDS]


@functools.cache
def prose_of_module(path: pathlib.Path) -> tuple[str, ...]:
    """Blocks of the docstrings of a module, and its comments, neighbouring lines as one."""
    return tuple(_prose_of_module(path))


def _prose_of_module(path: pathlib.Path) -> Iterator[str]:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from blocks_of_docstring(ast.get_docstring(node) or "")
    comments: list[str] = []
    last = 0  # the line of the last comment that has a line of its own
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                comment = token.string.lstrip("#: ")
                is_prose = not token.string.startswith("#  ")  # but the line of a table
                if last == token.start[0] - 1 and is_prose:
                    comments[-1] = f"{comments[-1]} {comment}"
                else:
                    comments.append(comment)
                last = token.start[0] if token.line.strip().startswith("#") else 0
    yield from comments


def blocks_of_docstring(docstring: str) -> Iterator[str]:
    """As of Markdown; the lines of a section such as ``Args:`` are blocks, each with those that continue it."""
    lines: list[str] = []
    item = None  # what an item of the section that the line is in begins with
    for number, line in enumerate(docstring.splitlines()):
        if re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields|Example):+", line):
            item = r"\S" if number == 0 else r"  \S"  # that of __init__ begins with its arguments
            lines += ["", ""]
        elif item is not None and re.match(item, line):
            lines += ["", line.strip()]
        else:
            if line and not line.startswith(" "):
                item = None
            lines.append(line if item is None else line.strip())
    for block in blocks_of_markdown("\n".join(lines)):
        if "====" not in block:  # a table
            yield block


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_sentences_of_pages_are_short(page):
    assert long_sentences(blocks_of_markdown(page.read_text())) == []


def test_sentences_of_docstrings_and_comments_are_short():
    found = {
        f"{path.relative_to(ROOT)}: {sentence}"
        for path in MODULES
        for sentence in long_sentences(prose_of_module(path))
    }
    assert found == set()


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_prose_of_notebooks(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert long_sentences(blocks_of_markdown(prose)) == []
    assert banned(prose) == []


def banned(text: str) -> list[str]:
    return re.findall(rf"\b(?:{'|'.join(BANNED)})\b", text, flags=re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_use_the_terms_of_the_field(page):
    assert banned(page.read_text()) == []


def test_modules_use_the_terms_of_the_field():
    """In docstrings and comments; the strings of messages are reviewed."""
    found = {
        f"{path.relative_to(ROOT)}: {block}" for path in MODULES for block in prose_of_module(path) if banned(block)
    }
    assert found == set()


def test_long_sentences_are_found():
    words = "word " * 25
    assert long_sentences(blocks_of_markdown(f"{words.strip()}. And {words.strip()} more.")) == [f"And {words}more."]
    assert long_sentences(blocks_of_markdown(f"- {words}\n- {words}\n\n{words}\n\n| {words} | {words} |\n")) == []
    assert long_sentences(blocks_of_markdown(f"See e.g. {words}")) != []
    assert long_sentences(blocks_of_markdown(f"```\n{words * 2}\n```\n\n    {words * 2}")) == []
    docstring = f"First.\n\nArgs:\n  one: {words}\n  two: {words}\n    more.\n\nReturns:\n  {words}"
    assert [number_of_words(each) for each in long_sentences(blocks_of_docstring(docstring))] == [26, 27]
