"""The wheel: every module, file and config is in it, and its console scripts run from any folder."""

import fnmatch
import importlib.util
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import types
import venv
import zipfile

import pytest

from vmoe_inform import commands
from vmoe_inform.config import files as config_files

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_and_the_configs_are_in_the_wheel(monkeypatch):
    """That every folder with modules is a package, tests/test_imports.py says."""
    found = {}
    asked = types.SimpleNamespace(setup=lambda **given: found.update(given), find_packages=lambda include: include)
    monkeypatch.setitem(sys.modules, "setuptools", asked)
    runpy.run_path(str(ROOT / "setup.py"))
    assert found["packages"] == ["vmoe_inform*", "vmoe_inform.configs"]
    assert found["package_dir"] == {"vmoe_inform.configs": "configs"}


def test_every_file_of_a_package_that_is_no_module_is_in_the_wheel():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    files = [
        path for path in (ROOT / "vmoe_inform").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert len(files) > 5
    for path in files:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns.get(package, ())), path


def test_every_console_script_is_a_module_that_says_what_it_does():
    scripts = PROJECT["project"]["scripts"]
    for script, target in scripts.items():
        name = script.removeprefix("vmoe-").replace("-", "_")
        name = "import_checkpoint" if name == "import" else name  # which is a word of Python
        assert target == f"vmoe_inform.commands:{name}"
        assert callable(getattr(commands, name))
    public = {
        name for name, value in vars(commands).items() if callable(value) and value.__module__ == commands.__name__
    }
    assert {target.rpartition(":")[2] for target in scripts.values()} == public - {"_command"}
    for module in ("train", "evaluate", "benchmark.__main__", "drill.__main__", "data.check"):
        assert importlib.util.find_spec(f"vmoe_inform.{module}") is not None


def test_the_page_of_the_installation_has_every_console_script():
    table = [line for line in (ROOT / "docs" / "install.md").read_text().splitlines() if line.startswith("| `vmoe-")]
    named = re.findall(r"`(vmoe-[\w-]+)`", "\n".join(line.split("|")[1] for line in table))
    assert sorted(named) == sorted(PROJECT["project"]["scripts"])


def test_a_console_script_has_the_help_of_its_module(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", "from vmoe_inform.commands import study; study()", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("Compares routers")
    assert "--routers: " in run.stdout


def test_configs_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(config_files.packaged()) == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    (tmp_path / "digits").mkdir()  # a folder of runs does not hide the config
    config = config_files.load("digits:router=symphony_vmoe,experts=4", {"train.epochs": 2.0})
    assert (config.model.router.inform, config.model.moe.num_experts, config.train.epochs) == ("symphony", 4, 2.0)


@pytest.mark.slow
def test_an_installed_wheel_trains_from_any_folder(tmp_path):
    """Built by pip, as for an index, and installed beside the packages that this environment has."""
    source = tmp_path / "source"  # pip leaves a folder build/ where it builds
    for name in ("vmoe_inform", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", f"--wheel-dir={tmp_path}", str(source)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "vmoe_inform/configs/digits.py" in names
    assert [name for name in names if name.startswith(("configs", "tests"))] == []

    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    [site_packages] = environment.glob("lib/python*/site-packages")
    # A path in a .pth file is not searched for further ones: the editable install of this environment stays out.
    (site_packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    subprocess.run([*pip, f"--python={python}", "install", "--quiet", "--no-deps", str(wheel)], check=True)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}

    def command(name: str, *arguments: str) -> str:
        words = [str(environment / "bin" / name), *arguments]
        run = subprocess.run(words, cwd=elsewhere, env=variables, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    where = "import vmoe_inform; print(vmoe_inform.__file__)"
    found = subprocess.run([python, "-c", where], cwd=elsewhere, env=variables, capture_output=True, text=True)
    assert found.stdout.strip() == str(site_packages / "vmoe_inform" / "__init__.py")
    config = "--config=digits:variant=Ti/16,experts=4"
    fields = ("--config.train.steps=8", "--config.optimizer.warmup_steps=2")
    assert "parameters" in command("vmoe-train", config, *fields, "--dry_run")
    assert "all steps done" in command("vmoe-train", config, *fields, "--workdir=run")
    assert "all steps done" in command("vmoe-train", "--config=run/config.json", "--workdir=again")
    assert "clean: " in command("vmoe-evaluate", "--workdir=run", "--suites=clean")
    assert (elsewhere / "run" / "evaluation" / "report.html").is_file()
    command("vmoe-analyze", "--workdir=run", "--limit=16")
    assert (elsewhere / "run" / "analysis" / "routing.html").is_file()
