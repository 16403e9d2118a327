"""A training step needs JAX, Flax and a few small libraries: those that read data are imported when data are read."""

import ast
import sys
from collections.abc import Iterable, Iterator

import pytest

from tests.test_imports import modules

# What `pip install absl-py flax jaxtyping ml-collections optax` brings, and JAX of the machine with NumPy
LIBRARIES = {"absl", "flax", "jax", "jaxtyping", "ml_collections", "numpy", "optax"}


def imported_at_once(nodes: Iterable[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when a module is imported: not those of functions, or for type checkers alone."""
    for node in nodes:
        match node:
            case ast.Import() | ast.ImportFrom():
                yield node
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                yield from imported_at_once(node.orelse)
            case ast.If():
                yield from imported_at_once([*node.body, *node.orelse])
            case ast.Try() | ast.With() | ast.ClassDef():
                yield from imported_at_once(node.body)


def libraries_of(root: str) -> dict[str, str]:
    """Libraries that a module of the package imports, itself or through others; each with a module that does so."""
    known, found, waiting, seen = modules(), {}, [root], set()
    while waiting:
        module = waiting.pop()
        if module not in known or module in seen:
            continue
        seen.add(module)
        waiting += [module.rpartition(".")[0]]  # the packages on the way
        for node in imported_at_once(ast.parse(known[module].read_text()).body):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            )
            waiting += names
            found |= {name.partition(".")[0]: module for name in names}
    return {name: by for name, by in found.items() if name not in sys.stdlib_module_names | {"vmoe_inform"}}


@pytest.mark.parametrize(
    "module",
    ["vmoe_inform.training.program", "vmoe_inform.accelerator_check", "vmoe_inform.performance.accelerator.run"],
)
def test_it_runs_without_the_libraries_that_read_data(module):
    assert {name: by for name, by in libraries_of(module).items() if name not in LIBRARIES} == {}


def test_training_starts_without_what_only_draws_or_compares():
    """What takes a tenth of a second or more to import, and is for reports, corruptions and linear classifiers."""
    found = libraries_of("vmoe_inform.train") | libraries_of("vmoe_inform.training.loop")
    assert found.keys() >= {"grain", "orbax"}
    assert not found.keys() & {"imagecorruptions", "matplotlib", "scipy", "skimage", "sklearn", "tensorflow"}


def test_what_reads_data_is_found():
    assert libraries_of("vmoe_inform.data.batches")["grain"].startswith("vmoe_inform.data.")
    text = "import a\nif TYPE_CHECKING:\n    import b\ntry:\n    import c\nexcept OSError: pass\ndef f():\n    import d"
    assert [node.names[0].name for node in imported_at_once(ast.parse(text).body)] == ["a", "c"]
