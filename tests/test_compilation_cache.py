"""The folder of compiled programs that commands name where the user names none."""

import os

import jax
import pytest

from vmoe_inform.command_line import _compilation_cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("JAX_ENABLE_COMPILATION_CACHE", raising=False)
    named = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: named.append(setting))
    return tmp_path / "vmoe_inform", named


def test_the_folder_is_of_this_version_and_machine(home):
    folder, named = home
    _compilation_cache.turn_on()
    (inner,) = (folder / "compiled").iterdir()
    assert inner.name == f"{jax.lib.__version__}-{_compilation_cache.machine()}"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(inner)  # for processes of a study
    assert named == [("jax_compilation_cache_dir", str(inner))]


@pytest.mark.parametrize(
    "setting", [{"JAX_COMPILATION_CACHE_DIR": ""}, {"JAX_ENABLE_COMPILATION_CACHE": "False"}], ids=str
)
def test_jaxs_own_settings_come_first(home, monkeypatch, setting):
    folder, named = home
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    _compilation_cache.turn_on()
    assert not folder.exists()
    assert not named


def test_a_folder_that_cannot_be_made_is_one_warning(home, caplog):
    folder, named = home
    folder.write_text("no folder")
    _compilation_cache.turn_on()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "compiled programs are not kept: " in record.message
    assert not named
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
