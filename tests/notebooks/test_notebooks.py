"""The notebooks run from top to bottom, and are stored as nobody has run them."""

import pathlib
import sys

import jupyter_client.kernelspec
import nbclient
import nbformat
import numpy as np
import pytest

from tests import tiny_text

ROOT = pathlib.Path(__file__).parents[2]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# How many pictures each one shows at least.
PICTURES = {
    "01_train_and_look": 5,
    "02_compare_routers": 2,
    "03_write_your_router": 2,
    "04_imagenet_checkpoint": 4,
    "05_language": 4,
}
# What each one does less of in a short run.
SHORT = {
    "02_compare_routers": {"ROUTERS": ["similarity_vmoe", "symphony_vmoe"]},
    "04_imagenet_checkpoint": {"SUITES": "clean,r"},
    "05_language": {"STEPS": 4},
}
SECONDS = 600  # on a machine that does other things too


def test_these_are_the_notebooks():
    assert [path.stem for path in PATHS] == list(PICTURES)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_stored_as_nobody_has_run_it(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert "\n" not in cell.source.rstrip() or cell.cell_type == "markdown" or len(cell.source.splitlines()) <= 25
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize(
    ("folders", "expected"),
    [(("", ""), {}), (("", "S"), {"data.suites_directory": "S"}), (("D", ""), {"data.directory": "D"})],
)
def test_a_folder_that_is_not_given_is_that_of_the_run(folders, expected):
    notebook = nbformat.read(ROOT / "notebooks" / "04_imagenet_checkpoint.ipynb", as_version=4)
    lines = [line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("HERE = ")]
    names = dict(zip(("DATA", "SUITES_DATA"), folders, strict=True))
    exec("\n".join(lines), names)
    assert names["HERE"] == expected


@pytest.fixture(scope="module")
def kernel():
    """A running kernel for several notebooks, one after the other: its imports take as long as a short run."""
    manager = jupyter_client.KernelManager()
    manager.start_kernel(cwd=str(ROOT / "notebooks"), extra_arguments=["--HistoryManager.hist_file=:memory:"])
    yield manager
    manager.shutdown_kernel(now=True)


def run(path, kernel=None, **parameters):
    """Executes a notebook, its cell of parameters replaced; gives what its cells put out.

    Its names are gone from a kernel that it shares when the next one begins, in the folder of the notebooks again.
    """
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    # %reset takes __spec__ too, which Python looks at when it starts processes.
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\n__spec__ = None\n%cd -q {path.parent}"))
    place = {"metadata": {"path": str(path.parent)}}
    client = nbclient.NotebookClient(notebook, timeout=SECONDS, resources=place, km=kernel)
    client.execute()
    if kernel is not None:
        client.kc.stop_channels()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def write_glosses(folder):
    """WordNet's files with 300 glosses each, of invented words: 1 % of what the package has."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for label, part in enumerate(("adj", "adv", "noun", "verb")):
        glosses = (" ".join(random.choice(tiny_text.WORDS, 9)) for _ in range(300))
        lines = "".join(f"{number:08} {label:02} n 01 thing | {gloss}\n" for number, gloss in enumerate(glosses))
        (folder / f"data.{part}").write_text(lines)
    return folder


def pictures(outputs):
    return [output for output in outputs if "image/png" in output.get("data", {})]


# The comparison trains several; tests/analysis shows the functions that it calls.
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem == "02_compare_routers" else [])
        for path in sorted(PATHS, key=lambda path: path.stem == "03_write_your_router")  # its step stays registered
    ],
)
def test_runs_in_short(path, kernel, tmp_path, tmp_path_factory):
    """One epoch instead of many: what it shows is meaningless, that it shows it is not."""
    folder = tmp_path_factory.getbasetemp() / "notebook_runs"  # one notebook looks at what the first one trained
    parameters = {"RUNS": str(folder), "EPOCHS": 1, "GLOSSES": str(write_glosses(tmp_path / "glosses"))}
    outputs = run(path, kernel, **parameters, **SHORT.get(path.stem, {}))
    assert len(pictures(outputs)) >= PICTURES[path.stem]
    said = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not [text for text in said if "Warning" in text]  # as of os.fork() below JAX's threads


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_runs_as_stored(path, tmp_path):
    assert len(pictures(run(path, RUNS=str(tmp_path)))) >= PICTURES[path.stem]


def test_the_kernel_is_this_python():
    command = jupyter_client.kernelspec.KernelSpecManager().get_kernel_spec("python3").argv
    assert command[0] in ("python", sys.executable)
