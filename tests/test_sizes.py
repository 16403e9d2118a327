"""Files and functions stay small enough to read at once: a file of at most 350 lines, a function of at most 80."""

import ast
import pathlib
import statistics

from tests import test_imports

PACKAGE = pathlib.Path(__file__).parent.parent / "vmoe_inform"
MOST_LINES_OF_A_FILE = 350
MOST_LINES_OF_A_FUNCTION = 80
MOST_LINES_OF_THE_MEDIAN_FILE = 120


def lines_of_files() -> dict[str, int]:
    paths = (path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".js", ".jinja"))
    return {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in paths}


def lines_of_functions(text: str) -> dict[str, int]:
    """Lines of each function, decorators excluded; of several with one name, the longest."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            found[node.name] = max(found.get(node.name, 0), node.end_lineno - node.lineno + 1)
    return found


def test_no_file_is_longer_than_a_reader_can_hold():
    assert {name for name, lines in lines_of_files().items() if lines > MOST_LINES_OF_A_FILE} == set()


def test_command_lines_only_read_flags_and_call():
    names = (
        name.replace(".", "/") for name in (*test_imports.COMMAND_LINES, "data.check", "data.prepare", "data.unpack")
    )
    lines = lines_of_files()
    long = {
        name: lines[path]
        for name in names
        for path in (f"{name}.py", f"{name}/__main__.py")
        if lines.get(path, 0) > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_the_median_file_is_short():
    lines = [lines for name, lines in lines_of_files().items() if name.endswith(".py")]
    assert statistics.median(lines) <= MOST_LINES_OF_THE_MEDIAN_FILE


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{name}:{function}"
        for name in lines_of_files()
        if name.endswith(".py")
        for function, lines in lines_of_functions((PACKAGE / name).read_text()).items()
        if lines > MOST_LINES_OF_A_FUNCTION
    }
    assert long == set()


def test_lines_of_a_function_are_counted_from_its_def_to_its_end():
    text = "@decorated\ndef one():\n    '''Says.'''\n\n    return 1\n\n\nasync def two(\n    a,\n): pass\n"
    assert lines_of_functions(text) == {"one": 4, "two": 3}
