"""Plug-ins: modules of others that register routers, suites, metrics, data sources or tasks when they are imported.

One is found in any of three ways:

- as an entry point of an installed package (group ``vmoe_inform.plugins``);
- as an import of the ``--config`` file;
- by its name in the config of a run, which records what was registered when it began.
"""

import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import pathlib
import sys
import types
from collections.abc import Iterable

from vmoe_inform import checks, registry

GROUP = "vmoe_inform.plugins"
_SHOWN = 300  # characters of another program's message
_files: dict[str, pathlib.Path] = {}  # files that were run as modules, by the modules' names
_modules: dict[tuple[pathlib.Path, int], types.ModuleType] = {}  # the same by path and time of change


@functools.cache
def load_installed() -> None:
    """Imports the plug-ins of installed packages, once in a process.

    Raises:
      ValueError: one of them cannot be imported; says which.
    """
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
        try:
            point.load()
        except Exception as problem:
            package = point.dist.name if point.dist is not None else "an unknown package"
            raise checks.error(
                f"plug-in {point.name}", f"{point.value}, of {package}, to be importable", words(problem)
            ) from None


def in_use() -> tuple[str, ...]:
    """Modules outside this package that have registered something in this process; for a file without the name of a
    module, its path."""
    outside = [name for name in registry.registering_modules() if name.partition(".")[0] != __name__.partition(".")[0]]
    return tuple(str(_files.get(name, name)) for name in outside)


def load(names: Iterable[str], *, files: bool = False, outside: pathlib.PurePath | None = None) -> dict[str, str]:
    """Imports plug-ins by name.

    Args:
      names: of modules, or paths of files, as :func:`in_use` gives them.
      files: whether files are run too.
      outside: a folder without links on the way that holds data, in which a module is not looked for.

    Returns:
      those that could not be imported, and why.
    """
    missing = {}
    for name in [name for name in names if name not in in_use()]:
        if name == "__main__":
            missing[name] = "a notebook or script registered it: move that into a module"
        elif name.endswith(".py") and not files:
            missing[name] = "a config file, which is not run again: move what it registers into a module"
        elif name not in sys.modules:
            try:
                _load(name, outside)
            except Exception as problem:
                missing[name] = words(problem)
    return missing


def _load(name: str, outside: pathlib.PurePath | None) -> None:
    if name.endswith(".py"):
        run_file(pathlib.Path(name))
    else:
        _check_outside(name, outside)
        importlib.import_module(name)


def run_file(path: pathlib.Path) -> types.ModuleType:
    """A file as a module, run once as long as it is not changed.

    It has the name by which Python would import it, if there is one, and otherwise a name of its own. Dataclasses and
    pickled functions in it need it to be known by a name.
    """
    key = (path.absolute(), path.stat().st_mtime_ns)
    if key in _modules:
        return _modules[key]
    name = _importable_name(path.absolute())
    if name is None:
        of_path = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]  # others may be called the same
        name = f"vmoe_inform_file_{path.stem}_{of_path}"
        _files[name] = path.absolute()
    spec = importlib.util.spec_from_loader(name, importlib.machinery.SourceFileLoader(name, str(path)))
    assert spec is not None  # as the loader is given
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:  # as an import does: nobody finds half a module
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    _modules[key] = module
    return module


def words(problem: BaseException) -> str:
    """What another program's error says, in one line."""
    message = problem.msg if isinstance(problem, SyntaxError) else str(problem)
    line = f"{type(problem).__name__}: {' '.join(message.split())}"
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _importable_name(path: pathlib.Path) -> str | None:
    """The name by which Python imports the file; None if it would not, or would find another file."""
    for folder in sys.path:
        try:
            parts = path.relative_to(pathlib.Path(folder).absolute()).with_suffix("").parts
        except ValueError:
            continue
        name = ".".join(parts)
        if all(part.isidentifier() for part in parts) and _origin(name) == path:
            return name
    return None


def _origin(name: str) -> pathlib.Path | None:
    """The file that Python would import; packages on the way are imported."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else pathlib.Path(spec.origin).absolute()


def _check_outside(name: str, folder: pathlib.PurePath | None) -> None:
    """Raises ImportError for a module that data must not have run: in their own folder, or no plug-in."""
    if folder is None:
        return
    parts, spec = name.split("."), None
    for length in range(1, len(parts) + 1):  # packages on the way, which would be imported too
        spec = importlib.util.find_spec(".".join(parts[:length]))
        if spec is None:
            return
        places = [spec.origin] if spec.origin else [*(spec.submodule_search_locations or ())]
        if any(pathlib.Path(place).resolve().is_relative_to(folder) for place in places):
            raise ImportError(f"it lies in the run's own folder {folder}")
    # Some modules act when they are imported, and data must not be able to name just any.
    loader = spec.loader if spec is not None else None
    if isinstance(loader, importlib.abc.InspectLoader) and "vmoe_inform" not in (loader.get_source(name) or ""):
        raise ImportError("its code does not mention vmoe_inform, which it would register with")
