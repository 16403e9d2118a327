"""A trace of some train steps, for XProf, TensorBoard or Perfetto."""

import pathlib

import jax

from vmoe_inform import storage
from vmoe_inform.performance.accelerator.results import TraceRow
from vmoe_inform.performance.accelerator.steps import Step

_STEPS = 5


def trace(step: Step, folder: storage.Path) -> TraceRow:
    """Writes FOLDER/plugins/profile/TIME/HOST.xplane.pb, as a run with ``train.profile`` does.

    Raises:
      OSError, JaxRuntimeError: it cannot be written.
    """
    storage.make_folder(folder)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    jax.block_until_ready(step.take(1))
    with storage.local_folder(folder) as local:
        before = set(_files(local))
        with jax.profiler.trace(local, create_perfetto_trace=True, profiler_options=options):
            jax.block_until_ready(step.take(_STEPS))
        sizes = [path.stat().st_size for path in _files(local) if path not in before]
    return TraceRow(str(folder), _STEPS, len(sizes), sum(sizes))


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
