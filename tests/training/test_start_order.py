"""Worker processes start before the accelerators do: seen in a process in which JAX has not started anything yet."""

import os
import subprocess
import sys

from tests.processes import ROOT

_RUN = """
import multiprocessing, pickle, sys

from jax._src import xla_bridge

from tests import tiny
from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.data import sources
from vmoe_inform.data.images import digits  # noqa: F401  (registers the source)


class Watched:
    \"\"\"Digits that notice when they are copied to a worker process.\"\"\"

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]

    def name(self, index):
        return self.records.name(index)

    def __getstate__(self):
        print("copied, devices started:", xla_bridge.backends_are_initialized(), flush=True)
        return self.__dict__


@sources.SOURCES.register("watched")
def watched(data, split):
    source = sources.SOURCES["digits"](data, split)
    return sources.Source(Watched(source.records), source.class_names)


if __name__ == "__main__":
    from vmoe_inform.training import loop

    # A mesh that no machine fits ends the run as soon as the devices are there.
    config = tiny.config_dict(data__source="watched", data__num_workers=1, data__num_threads=0, mesh__expert=4)
    config.mesh.replica = 1000
    config.train.batch_size = 4000
    config.model.moe.group_size_sequences = 1
    parsed = config_lib.parse(config)
    try:
        loop.train(parsed, sys.argv[1], show_progress=False)
    except checks.InputError as problem:
        print("ended:", problem, flush=True)
    print("devices started:", xla_bridge.backends_are_initialized())
    print("workers left:", len(multiprocessing.active_children()))
"""


def test_a_worker_has_started_before_the_devices_do(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(_RUN)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "copied, devices started: False", done.stderr
    assert lines[1].startswith("ended: mesh"), lines
    assert lines[2:] == ["devices started: True", "workers left: 0"]
