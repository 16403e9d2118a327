"""Whole runs on the digits: what is written, and that a resumed run is the same run to the last bit."""

import dataclasses
import json
import os
import re
import shutil
import signal

import chex
import jax
import pytest

from tests import tiny
from tests.training.hooks.test_profile import steps_traced
from tests.training.test_observability import undocumented
from vmoe_inform import config as config_lib
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.checkpoints import Checkpoints, SavingError
from vmoe_inform.runs.folder import read_config
from vmoe_inform.runs.reading import CheckpointReader
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.training import loop
from vmoe_inform.training.stopping import StopRequest
from vmoe_inform.training.terminal import Terminal
from vmoe_inform.training.writers.jsonl import read_metrics


def _config(**overrides) -> config_lib.Config:
    settings = {"router": "symphony_vmoe", "train__ema_decay": 0.9, **tiny.ONE_BLOCK}
    # A checkpoint after 10 of 20 steps is in the middle of an interval and of the warm-up.
    options = {"update_every": 4, "warmup_share": 0.6}
    settings |= {f"model__router__options__symphony__{name}": value for name, value in options.items()}
    return config_lib.parse(tiny.config_dict(**(settings | overrides)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of 20 steps with every kind of state: folder and result."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, loop.train(_config(evaluation__every_steps=10), workdir)


def test_a_resumed_run_is_bit_identical(finished, tmp_path):
    _, whole = finished
    config = _config(evaluation__every_steps=10)
    half = loop.train(config, tmp_path, stop_at_step=10)
    assert (half.steps_done, half.total_steps, half.headline) == (10, 20, None)
    resumed = loop.train(dataclasses.replace(config, profile=2), tmp_path)  # also while it is looked at
    assert resumed.steps_done == 20
    assert steps_traced(tmp_path / "profile" / "process_0") == [[14, 15]]
    chex.assert_trees_all_equal(whole.state, resumed.state)
    assert len(jax.tree.leaves(whole.state)) > 40  # parameters, two moments, average, adjacency, counters
    assert resumed.headline == whole.headline


def test_a_worker_process_changes_nothing_also_after_a_restart(finished, tmp_path):
    _, whole = finished
    config = _config(evaluation__every_steps=10, data__num_workers=1)
    loop.train(config, tmp_path, stop_at_step=7)
    chex.assert_trees_all_equal(whole.state, loop.train(config, tmp_path).state)


def test_a_checkpoint_written_while_training_goes_on_is_exact(finished, tmp_path):
    """Saving goes on in the background while the next step takes over the state's memory."""
    _, whole = finished
    config = _config(evaluation__every_steps=10, checkpoint__every_steps=5, checkpoint__keep=4)
    loop.train(config, tmp_path)
    for newer in ("10", "15", "20"):
        shutil.rmtree(tmp_path / "checkpoints" / newer)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        assert checkpoints.latest_step() == 5
    resumed = loop.train(config, tmp_path)
    chex.assert_trees_all_equal(whole.state, resumed.state)
    steps = [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl") if "loss" in entry]
    assert steps == [5, 10, 15, 20]  # what the first run logged after step 5 was replaced


def test_what_a_run_writes(finished):
    workdir, result = finished
    assert config_lib.parse(json.loads((workdir / "config.json").read_text())) == read_config(workdir)
    entries = read_metrics(workdir / "metrics.jsonl")
    assert undocumented({name for entry in entries for name in entry if name != "step"}) == []
    assert [e["step"] for e in entries if "loss" in e] == [5, 10, 15, 20]
    assert {"accuracy", "images_per_second", "learning_rate", "losses/importance", "losses/load", "losses/z"} <= set(
        entries[0]
    )
    steps = [entry for entry in entries if "loss" in entry]
    measured = {"data_wait_share", *(f"step_seconds/{name}" for name in ("p50", "p90", "p99", "max"))}
    layer = {"dropped", "entropy", "largest_load", "smallest_load", "load_cv", "dead_experts"}
    assert all(measured | {f"routing/block_0/{name}" for name in layer} <= entry.keys() for entry in steps)
    assert not {"mfu", "hbm_peak_bytes", "nonfinite_where", "expert_loads"} & steps[0].keys()  # a CPU has no peaks
    for entry in steps:
        assert 0 <= entry["data_wait_share"] <= 1
        assert 0 < entry["step_seconds/p50"] <= entry["step_seconds/p99"] <= entry["step_seconds/max"]
        assert 0 <= entry["routing/block_0/smallest_load"] <= 1 <= entry["routing/block_0/largest_load"] <= 4
        assert entry["routing/block_0/dead_experts"] in range(5)
    assert [e["step"] for e in entries if "evaluation/clean/top1" in e] == [10, 20]
    assert entries[-1]["evaluation/clean/top1"] == result.headline
    assert list((workdir / "tensorboard").iterdir())
    with Checkpoints(workdir, keep=3) as checkpoints:
        assert checkpoints.latest_step() == 20


def test_a_finished_run_cannot_be_profiled(finished):
    config = dataclasses.replace(_config(evaluation__every_steps=10), profile=2)
    for start in (loop.finished_headline, loop.train):
        with pytest.raises(ValueError, match=r"profile: expected None: 0 steps are left, .*; received 2"):
            start(config, finished[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"train__writers": ("jsonl", "papyrus")},
        {"evaluation__suites": ("clean", "fog")},
        {"evaluation__suites_every_steps": (("fog", 5),)},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_names_are_checked_of_a_finished_run_too(finished, settings):
    for start in (loop.finished_headline, loop.train):
        with pytest.raises(ValueError, match=r"received '(papyrus|fog)'"):
            start(_config(**{"evaluation__every_steps": 10, **settings}), finished[0])


def test_a_finished_run_is_left_as_it_is(finished):
    workdir, result = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    again = loop.train(_config(evaluation__every_steps=10), workdir)
    assert again.headline == result.headline
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_records_other_settings_of_the_machine(finished, tmp_path, warnings):
    workdir, result = finished
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    config = _config(evaluation__every_steps=10, data__num_threads=3)
    before = read_config(tmp_path).data.num_threads
    assert loop.finished_headline(config, tmp_path) == result.headline
    assert read_config(tmp_path).data.num_threads == 3
    [said] = [line for line in warnings if "finished run" in line]
    assert said.endswith(f"now with other settings than before: data.num_threads: {before} -> 3")


def test_a_finished_run_is_measured_anew_with_settings_that_change_results(finished, tmp_path):
    workdir, before = finished
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    config = _config(evaluation__every_steps=10, data__test_split="train")
    assert loop.finished_headline(config, tmp_path) is None
    after = loop.train(config, tmp_path)
    assert after.headline != before.headline
    assert loop.finished_headline(config, tmp_path) == after.headline
    assert read_config(tmp_path).data.test_split == "train"


def test_a_checkpoint_that_is_not_there(finished):
    workdir, _ = finished
    with (
        CheckpointReader(workdir) as checkpoints,
        pytest.raises(FileNotFoundError, match=r"of step 7 in .* those of 20$"),
    ):
        checkpoints.restore_variables({}, step=7)


def _cut_all(state):
    for path in state.glob("d/*"):
        path.write_bytes(path.read_bytes()[:10])


@pytest.mark.parametrize(
    "damage",
    [_cut_all, shutil.rmtree, lambda state: (state / "_METADATA").unlink()],
    ids=["files cut short", "no state", "no metadata"],
)
def test_a_damaged_checkpoint_is_one_clear_line(finished, tmp_path, damage):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "checkpoints" / "20" / "state")
    with pytest.raises(ValueError, match=r"checkpoint 20 in .*: expected whole files .*; received ") as caught:
        runs.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_another_run_is_refused(finished):
    workdir, _ = finished
    for overrides, field in (
        ({"model__hidden_size": 32}, r"workdir: expected the settings in .*: model.hidden_size: 16 -> 32$"),
        ({"seed": 5}, "seed: 0 -> 5$"),
        ({"router": "vmoe"}, "model.router.inform: 'symphony' -> 'none'"),
    ):
        with pytest.raises(ValueError, match=field):
            loop.train(_config(**overrides), workdir)


def test_a_checkpoint_of_another_model_is_refused(finished, tmp_path):
    """Also when somebody moved it into a folder of a fitting config."""
    workdir, _ = finished
    os.symlink(workdir / "checkpoints", tmp_path / "checkpoints")
    message = r"checkpoint 20 is of another model.*attention/key/bias: expected \(2, 16\); received \(2, 8\)"
    with pytest.raises(ValueError, match=message):
        loop.train(_config(model__hidden_size=32), tmp_path)


def test_the_classes_are_recorded_and_stay(tmp_path, warnings):
    digits = tuple("0123456789")
    assert loop.train(_config(), tmp_path, stop_at_step=1).config.data.class_names == digits
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["data"].pop("class_names") == list(digits)
    (tmp_path / "config.json").write_text(json.dumps(written))  # as an older version did
    warnings.clear()
    loop.train(_config(), tmp_path, stop_at_step=2)
    assert [line for line in warnings if "no record of its classes, which are compared by number" in line] == warnings
    assert read_config(tmp_path).data.class_names == digits
    with pytest.raises(ValueError, match=r"data.class_names: \['0', '1', .* -> \['9', '8', "):
        loop.train(_config(data__class_names=digits[::-1]), tmp_path)
    with pytest.raises(ValueError, match=r"classes of split 'train': .*missing: cat; unknown: 9$"):
        loop.train(_config(data__class_names=(*digits[:9], "cat")), tmp_path / "new")


def test_fewer_steps_than_done_are_refused_and_change_nothing(finished):
    workdir, _ = finished
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"train.steps: expected at least the 20 steps .*; received 8"):
        loop.train(_config(evaluation__every_steps=10, train__steps=8), workdir)
    assert (workdir / "config.json").read_bytes() == before


def test_readers_touch_nothing(finished):
    """Evaluating a run must not tidy away the checkpoint that its training is just writing."""
    workdir, _ = finished
    unfinished = workdir / "checkpoints" / "25.orbax-checkpoint-tmp"
    unfinished.mkdir()
    assert runs.find(workdir).load().step == runs.find(workdir).step == 20
    assert unfinished.exists()
    unfinished.rmdir()


def test_sigterm_saves_and_stops(tmp_path, monkeypatch):
    original = Terminal.step

    def update(self, step, *arguments):
        original(self, step, *arguments)
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)  # such as Ctrl-C while it saves

    monkeypatch.setattr(Terminal, "step", update)
    handler = signal.getsignal(signal.SIGTERM)
    result = loop.train(_config(), tmp_path)
    assert result.steps_done < result.total_steps
    assert signal.getsignal(signal.SIGTERM) is handler
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        assert checkpoints.latest_step() == result.steps_done


def test_sigterm_in_an_evaluation_leaves_it_for_the_next_start(finished, tmp_path, monkeypatch):
    workdir, whole = finished
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))  # the evaluation after the last step
    batches = []

    def finish(self, what):
        if what == "a batch of evaluation":
            batches.append(what)
            os.kill(os.getpid(), signal.SIGTERM)

    config = _config(evaluation__every_steps=10)
    with monkeypatch.context() as patched:
        patched.setattr(Watchdog, "finished", finish)
        stopped = loop.train(config, tmp_path)
    assert (stopped.steps_done, stopped.headline, len(batches)) == (20, None, 1)
    assert loop.train(config, tmp_path).headline == whole.headline


def test_a_checkpoint_that_cannot_be_written_ends_the_run_or_not(tmp_path, monkeypatch):
    original = Checkpoints.save

    def save(self, state, data):
        if int(state.step) == 1:
            raise SavingError("no room")
        original(self, state, data)

    monkeypatch.setattr(Checkpoints, "save", save)
    goes_on = _config(checkpoint__every_steps=1, checkpoint__on_error="continue")
    assert loop.train(goes_on, tmp_path, stop_at_step=2).steps_done == 2
    with CheckpointReader(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 2
    with pytest.raises(SavingError, match="no room"):
        loop.train(_config(checkpoint__every_steps=1), tmp_path / "other", stop_at_step=2)


def test_a_workdir_that_is_removed_ends_the_run(tmp_path, monkeypatch):
    original, workdir = Terminal.step, tmp_path / "run"

    def update(self, step, *arguments):
        original(self, step, *arguments)
        if step == 5:
            shutil.rmtree(workdir)

    monkeypatch.setattr(Terminal, "step", update)
    with pytest.raises(OSError, match=r"workdir: expected '.*/run' to stay while training runs; it was removed"):
        loop.train(_config(), workdir)
    assert not workdir.exists()  # nothing that looks like a run is left in its place


def test_a_signal_while_the_run_starts_is_obeyed_before_the_first_step(tmp_path):
    stop = StopRequest()
    stop.received = "SIGTERM"
    result = loop.train(_config(), tmp_path, stop=stop)
    assert (result.steps_done, result.headline) == (0, None)
    with CheckpointReader(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    huge = {"optimizer__learning_rate": 1e18, "optimizer__gradient_clip_norm": None, "optimizer__warmup_steps": 0}
    config = _config(router="smoe_top2", train__ema_decay=0.0, **huge)
    with pytest.raises(FloatingPointError, match=r"loss: expected a finite number; received nan at step \d+"):
        loop.train(config, tmp_path)


def test_wrong_number_of_classes(tmp_path):
    with pytest.raises(ValueError, match=r"model.num_classes: expected the 10 classes of the data; received 7"):
        loop.train(_config(model__num_classes=7), tmp_path)


def test_a_finished_run_that_is_made_longer_says_so_and_keeps_its_evaluation(finished, tmp_path, warnings):
    workdir, _ = finished
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    config = _config(evaluation__every_steps=10, train__steps=25)
    assert loop.train(config, tmp_path, stop_at_step=21).steps_done == 21
    (line,) = [line for line in warnings if "was finished" in line]
    expected = r"was finished after 20 steps; continues to step 25 \(train.steps: 20 -> 25\)\. .* rate 0 -> 0.000\d+$"
    assert re.search(expected, line)
    entries = read_metrics(tmp_path / "metrics.jsonl")
    assert [entry["step"] for entry in entries if "evaluation/clean/top1" in entry] == [10, 20]
