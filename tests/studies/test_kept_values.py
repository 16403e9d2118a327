"""The values of studies in docs/data: a page has each file's command, and no two have the same runs by accident."""

import itertools
import json
import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
FILES = sorted((DOCS / "data").glob("study_*.json"))
COMMANDS = "\n".join(
    block
    for page in DOCS.glob("*.md")
    for block in re.findall(r"```(.*?)```|`([^`\n]+)`", page.read_text(), re.DOTALL)
    for block in block
    if "--tables_of=docs/data/" in block
)
# Files that have the same runs of this many routers; their pages say so.
SHARED = {("study_wordnet_routers", "study_wordnet_scales"): 5}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_page_has_the_command_that_makes_the_tables(path):
    assert re.search(rf"\b{path.stem.removeprefix('study_')}\b", COMMANDS.replace("study_", ""))


def test_no_two_files_have_the_same_runs_by_accident():
    routers = {path.stem: json.loads(path.read_text())["routers"] for path in FILES}
    found = {
        (one, other): sum(routers[one][name] == routers[other][name] for name in routers[one].keys() & routers[other])
        for one, other in itertools.combinations(routers, 2)
    }
    assert {pair: count for pair, count in found.items() if count} == SHARED
