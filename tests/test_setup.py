"""What the set-up promises: the devices, the checks that are on, the scripts, no libGL."""

import importlib.metadata
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import types

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from packaging.requirements import Requirement

from vmoe_inform import routing

ROOT = pathlib.Path(__file__).parent.parent


def normalized(requirement: str) -> str:
    """``ml_collections >= 1`` -> ``ml-collections``: the name as package indices compare it (PEP 503)."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


PYTHONS = ("3.11", "3.12", "3.13")


def pins(python: str = "") -> dict[str, str]:
    """What is installed for a version of Python, by default the one that runs: versions by name."""
    environment = {"python_version": python} if python else {}
    found: dict[str, str] = {}
    for name in ("requirements.txt", "requirements-test.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if not line.startswith("#"):
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate(environment):
                    assert normalized(line) not in found, line
                    found[normalized(line)] = str(requirement.specifier).removeprefix("==")
    return found


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_eight_devices():
    assert jax.device_count() == 8
    assert jax.devices()[0].platform == "cpu"


def test_rank_promotion_is_an_error():
    with pytest.raises(ValueError, match=r"rank promotion|rank_promotion"):
        jnp.zeros((2, 3)) + jnp.zeros(3)


def test_shapes_in_signatures_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError, match="adjacency"):
        routing.expert_informed(jnp.ones((1, 4, 3)), jnp.ones((2, 3)))


@pytest.mark.usefixtures("shapes_unchecked")
def test_users_get_the_errors_of_the_library():
    with pytest.raises(ValueError, match="adjacency: expected shape"):
        routing.expert_informed(jnp.ones((1, 4, 3)), jnp.ones((2, 3)))


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_within_its_bounds(python):
    pinned = pins(python)
    for line in project()["dependencies"] + project()["optional-dependencies"]["test"]:
        assert Requirement(line).specifier.contains(pinned[normalized(line)]), line
    of_users = {normalized(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line[0] != "#"}
    assert {normalized(line) for line in project()["dependencies"]} <= of_users
    # Installed by launch/install.sh alone, without its dependencies; and what those would bring in.
    assert not {"imagecorruptions-imaug", "opencv-python"} & set(pinned)


def test_the_newest_jax_is_pinned_where_python_lets_it():
    of_python = {python: pins(python)["jax"] for python in PYTHONS}
    assert of_python["3.11"].startswith("0.10.")  # the last that runs on it
    assert of_python["3.12"] == of_python["3.13"] > of_python["3.11"]


def test_the_pinned_versions_run():
    assert {name: importlib.metadata.version(name) for name in pins()} == pins()


def test_the_pinned_compiler_for_tpus_is_the_one_that_jax_asks_for():
    asked = [Requirement(line) for line in importlib.metadata.requires("jax") or ()]
    [libtpu] = [each for each in asked if each.name == "libtpu"]
    assert libtpu.specifier.contains(pins()["libtpu"])


def test_requirements_come_from_no_particular_index_or_machine():
    assert re.findall(r"://|^-|/|@", (ROOT / "requirements.txt").read_text().split("\n", 2)[2], re.MULTILINE) == []


@pytest.mark.parametrize("name", ["launch/install.sh", "launch/quickstart.sh", "launch/test.sh", ".ci/run"])
def test_scripts_are_executable_and_parse(name):
    assert (ROOT / name).stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", str(ROOT / name)], check=True)


def test_continuous_integration_only_runs_the_test_script():
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and line[0] != "#"]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', "exec ./launch/test.sh"]


def _is_taken(version: tuple[int, int]) -> bool:
    """What install.sh asks of the version of a Python."""
    (asked,) = re.findall(r"assert (.*?);", (ROOT / "launch/install.sh").read_text())
    return eval(asked, {"sys": types.SimpleNamespace(version_info=(*version, 0, "final", 0))})


def test_a_python_is_taken_if_the_requirements_are_for_it():
    """An older or newer one, which is the only one on some systems, would fail in the middle of pip's work."""
    assert [f"3.{minor}" for minor in range(8, 18) if _is_taken((3, minor))] == list(PYTHONS)


class Machine:
    """A checkout on a machine that has these programs beside those of a bare system; they note how they are called."""

    def __init__(self, folder: pathlib.Path):
        self.root, self.programs, self.calls = folder / "checkout", folder / "bin", folder / "calls"
        (self.root / "launch").mkdir(parents=True)
        self.programs.mkdir()
        self.calls.touch()
        for name in ("requirements.txt", "requirements-test.txt", "pyproject.toml", "setup.py"):
            (self.root / name).write_bytes((ROOT / name).read_bytes())
        for path in (ROOT / "launch").glob("*.sh"):
            (self.root / "launch" / path.name).write_bytes(path.read_bytes())
            (self.root / "launch" / path.name).chmod(0o755)
        for name in ("bash", "cat", "cksum", "dirname", "env", "mkdir", "rm", "sleep"):
            path = shutil.which(name)
            assert path is not None
            (self.programs / name).symlink_to(path)

    def has(self, name: str, does: str = "exit 0") -> None:
        path = self.programs / name
        path.unlink(missing_ok=True)  # it may be a link to the system's
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self.calls}"\n{does}\n')
        path.chmod(0o755)

    def has_python(self, name: str, version: tuple[int, int]) -> None:
        """Makes environments whose Python is of the same version and installs nothing."""
        self.has(
            name,
            f"""
case "$1 $2" in
  "-c import sys; assert"*) {"exit 0" if _is_taken(version) else "exit 1"} ;;
  "-c import sys; print"*) echo "{version}" ;;
  "--version "*) echo "Python {version[0]}.{version[1]}.0" ;;
  "-m playwright") [ ! -e "{self.root}/no_driver" ] || exit 127 ;;
  "-m venv") mkdir -p .venv/bin; cat "$0" >.venv/bin/python; /bin/chmod 755 .venv/bin/python ;;
esac
exit 0""",
        )

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "launch" / script)],
            env={"PATH": str(self.programs), "HOME": str(self.root), **variables},
            capture_output=True,
            text=True,
        )

    def called(self, *words: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if all(word in line for word in words)]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize("python", ["/no/such/python", ""])
def test_install_says_what_it_needs_when_there_is_no_usable_python(machine, python):
    machine.has_python("python3", (3, 10))
    run = machine.run("install.sh", PYTHON=python)
    assert run.returncode == 1
    assert "expected Python 3.11, 3.12 or 3.13" in run.stderr
    assert f"tried: {python or 'python3.11'}" in run.stderr
    assert run.stderr.endswith("python3 -m pip install --user uv && ./launch/install.sh\n")
    assert not (machine.root / ".venv").exists()


@pytest.mark.parametrize(("place", "minor"), [("on the path", 10), ("on the path", 14), ("where pip puts it", 10)])
def test_install_takes_a_python_of_uv_where_the_system_has_only_an_old_or_a_new_one(machine, place, minor):
    machine.has_python("python3", (3, minor))
    machine.has_python("a-new-python", (3, 13))
    machine.has("uv", "exec a-new-python -m venv")
    if place != "on the path":
        (machine.root / ".local/bin").mkdir(parents=True)
        (machine.programs / "uv").rename(machine.root / ".local/bin/uv")
    run = machine.run("install.sh")
    assert run.returncode == 0, run.stderr
    assert machine.called("uv venv --quiet --clear --seed --python >=3.11")
    assert (machine.root / ".venv/installed").is_file()


def test_install_makes_the_environment_anew_for_another_python_only(machine):
    machine.has_python("python3.11", (3, 11))
    machine.has_python("python3.13", (3, 13))
    told = 0
    for variables, made in (({}, 1), ({}, 1), ({"PYTHON": "python3.11"}, 1), ({"PYTHON": "python3.13"}, 2), ({}, 2)):
        run = machine.run("install.sh", **variables)
        assert run.returncode == 0, run.stderr
        assert len(machine.called("-m venv")) == made, variables
        is_new = made > told
        assert ("source .venv/bin/activate" in run.stdout) == is_new
        told = made
    assert machine.run("install.sh", PYTHON="python3.14").returncode == 1  # not there: said, not passed over


@pytest.mark.parametrize("missing", ["chromium", "a library of its driver"])
def test_the_test_script_installs_a_browser_where_it_may(machine, missing):
    machine.has_python("python3.11", (3, 11))
    machine.has("id", "echo 0")
    chromium, no_driver = machine.programs / "chromium", machine.root / "no_driver"
    machine.has("apt-get", f'case "$*" in *"chromium libatomic1") /bin/touch "{chromium}"; rm -f "{no_driver}" ;; esac')
    if missing != "chromium":
        machine.has("chromium")
        no_driver.touch()
    assert machine.run("test.sh").returncode == 0
    assert len(machine.called("apt-get install", "chromium")) == 1
    chromium.chmod(0o755)
    machine.calls.write_text("")
    assert machine.run("test.sh").returncode == 0
    assert machine.called("-m pytest") == ["python3.11 -m pytest -n 2 --dist=worksteal"]
    assert not machine.called("apt-get")


@pytest.mark.parametrize("reason", ["no apt-get", "no rights", "no package"])
def test_the_test_script_runs_the_tests_without_a_browser_where_it_may_not(machine, reason):
    machine.has_python("python3.11", (3, 11))
    machine.has("sleep")
    machine.has("id", "echo 1000" if reason == "no rights" else "echo 0")
    if reason != "no apt-get":
        machine.has("apt-get", "echo E: no such package >&2; exit 100")
    run = machine.run("test.sh")
    assert run.returncode == 0
    assert "Chromium could not be installed" in run.stderr
    assert machine.called("-m pytest")


def test_a_run_without_a_browser_ends_with_how_many_tests_it_left_out(machine):
    words = [sys.executable, "-m", "pytest", "-q", "tests/report/test_page.py", "-k", "does_not_fit"]
    run = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"PATH": str(machine.programs)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout
    assert re.search(r"\d skipped", run.stdout)
    assert re.fullmatch(
        r"NOT RUN: \d tests: no Chromium .*apt-get install chromium libatomic1\)", run.stdout.splitlines()[-1]
    )


def test_no_loaded_module_links_libgl():
    """In a process of its own: what the corruptions load must work where the system has no libGL."""
    program = """
import pathlib, cv2, imagecorruptions
maps = pathlib.Path("/proc/self/maps").read_text()
assert "cv2" in maps, "the list of loaded libraries was not read"
print([line for line in maps.splitlines() if "libGL." in line])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
