"""The folder of compiled programs that commands name where the user names none, and what runs get from it."""

import os
import pathlib
from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests import processes
from vmoe_inform import storage
from vmoe_inform.command_line import _compilation_cache
from vmoe_inform.runs import run as runs


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


@pytest.fixture
def empty_cache(tmp_path) -> Iterator[pathlib.Path]:
    """JAX's own cache in an empty folder, and no program in memory."""
    before = jax.config.jax_compilation_cache_dir

    def use(folder: str | None) -> None:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()

    use(str(tmp_path / "compiled"))
    yield tmp_path / "compiled"
    use(before)


@pytest.fixture
def found() -> Iterator[list[str]]:
    """A name for each program that was found in the cache."""
    events: list[str] = []

    def note(event: str, **_: object) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            events.append(event)

    jax.monitoring.register_event_listener(note)
    yield events
    jax.monitoring.unregister_event_listener(note)


def two_steps():
    """Parameters of two layers after two steps, by a program that is not in memory."""
    random = np.random.default_rng(0)
    inputs = random.standard_normal((16, 8), np.float32)
    params = [random.standard_normal(shape, np.float32) for shape in ((8, 32), (32, 4))]

    @jax.jit
    def step(params):
        def loss(params):
            return jnp.mean(jnp.square(jax.nn.gelu(inputs @ params[0]) @ params[1]))

        return jax.tree.map(lambda value, slope: value - 0.1 * slope, params, jax.grad(loss)(params))

    return jax.device_get(step(step(params)))


def test_parameters_after_steps_are_the_same_bits_with_and_without_it(empty_cache, found):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        without = two_steps()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()
    assert not empty_cache.exists()
    kept = two_steps()
    assert not found
    assert [path.name.partition("-")[0] for path in empty_cache.iterdir()] == ["jit_step"]
    again = two_steps()
    assert len(found) == 1
    chex.assert_trees_all_equal(without, kept, again)


def test_a_damaged_program_is_compiled_again(empty_cache, found):
    def result():
        return np.asarray(jax.jit(lambda values: jnp.cumsum(jnp.sin(values)) @ values)(np.arange(8, dtype=np.float32)))

    whole = result()
    (entry,) = (path for path in empty_cache.iterdir() if path.name.startswith("jit__lambda"))
    kept = entry.read_bytes()
    for damaged in (b"", kept[: len(kept) // 2], kept[:-1], kept[:200] + b"?" + kept[201:], b"no program" * 100):
        entry.write_bytes(damaged)
        with pytest.warns(UserWarning, match="Error reading persistent compilation cache entry for 'jit__lambda'"):
            np.testing.assert_array_equal(result(), whole)
    assert not found
    entry.write_bytes(kept)
    np.testing.assert_array_equal(result(), whole)
    assert len(found) == 1


@pytest.mark.slow
def test_runs_that_share_a_folder_at_the_same_time_are_the_same(tmp_path, monkeypatch):
    """Three runs start together with an empty folder, one more finds what they left; one is without."""

    def line(name):
        small = ("--config.model.num_layers=2", "--config.model.hidden_size=16", "--config.train.batch_size=16")
        steps = ("--config.train.steps=3", "--config.optimizer.warmup_steps=0", "--config.train.epochs=None")
        return ("--config=digits:router=symphony_vmoe", *small, *steps, f"--workdir={tmp_path / name}")

    def params(name):
        return jax.device_get(runs.find(storage.path("run", str(tmp_path / name))).load().variables)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    with processes.Forks("train", tmp_path, imports=("training.loop",)) as forks:
        ended = forks.run_together(*map(line, ("first", "second", "third")))
        assert [code for code, _, _ in ended] == [0, 0, 0], ended
        (folder,) = (tmp_path / "vmoe_inform" / "compiled").iterdir()
        entries = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert {"jit_create", "jit_train_step"} <= {name.partition("-")[0] for name in entries}
        assert "Error reading" not in forks.run(*line("later"))[2]
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == entries  # all was found
    off = {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # JAX reads it when it is imported
    (apart := tmp_path / "apart").mkdir()
    with processes.Forks("train", apart, imports=("training.loop",), environment=off) as forks:
        forks.succeed(*line("without"))
    chex.assert_trees_all_equal(*map(params, ("first", "second", "third", "later", "without")))
