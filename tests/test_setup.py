"""What the set-up promises: the devices, the checks that are on, the package's files, no libGL."""

import importlib.resources
import pathlib
import re
import stat
import subprocess
import sys
import tomllib

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from vmoe_inform import routing

ROOT = pathlib.Path(__file__).parent.parent


def normalized(requirement: str) -> str:
    """``ml_collections >= 1`` -> ``ml-collections``: the name as package indices compare it (PEP 503)."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def pins() -> dict[str, str]:
    text = "".join((ROOT / name).read_text() for name in ("requirements.txt", "requirements-test.txt"))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {normalized(name): version for name, version in (line.split("==") for line in lines)}


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


def test_every_dependency_is_pinned():
    declared = {normalized(name) for name in project()["dependencies"] + project()["optional-dependencies"]["test"]}
    assert declared <= set(pins())
    # Installed by launch/install.sh alone, without its dependencies; and what those would bring in.
    assert not {"imagecorruptions-imaug", "opencv-python"} & set(pins())


def test_requirements_come_from_no_particular_index_or_machine():
    assert re.findall(r"://|^-|/|@", (ROOT / "requirements.txt").read_text().split("\n", 2)[2], re.MULTILINE) == []


@pytest.mark.parametrize("name", ["launch/install.sh", "launch/quickstart.sh", "launch/test.sh", ".ci/run"])
def test_scripts_are_executable_and_parse(name):
    assert (ROOT / name).stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", str(ROOT / name)], check=True)


def test_continuous_integration_runs_exactly_the_test_script():
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands[-1] == "exec ./launch/test.sh"


def test_install_says_what_it_needs_when_there_is_no_usable_python(tmp_path):
    (tmp_path / "launch").mkdir()
    for name in ("requirements.txt", "pyproject.toml", "launch/install.sh"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    run = subprocess.run(
        ["bash", str(tmp_path / "launch/install.sh")],
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/no/such/python"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "expected a Python >= 3.11" in run.stderr
    assert "/no/such/python" in run.stderr
    assert not (tmp_path / ".venv").exists()


def test_package_brings_its_template_and_its_types():
    assert importlib.resources.files("vmoe_inform").joinpath("py.typed").is_file()
    assert importlib.resources.files("vmoe_inform.evaluation").joinpath("report.html.jinja").is_file()


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
