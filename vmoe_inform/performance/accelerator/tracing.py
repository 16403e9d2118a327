"""A trace of some train steps, for XProf, TensorBoard or Perfetto."""

import pathlib

import jax

from vmoe_inform import storage
from vmoe_inform.performance.accelerator.results import TraceRow
from vmoe_inform.performance.accelerator.steps import Step

_STEPS = 5


def trace(step: Step, folder: pathlib.Path) -> TraceRow:
    """Writes FOLDER/plugins/profile/TIME/HOST.xplane.pb, as a run with ``train.profile`` does.

    Raises:
      OSError, JaxRuntimeError: it cannot be written.
    """
    storage.make_folder(folder)
    before = set(_files(folder))
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    jax.block_until_ready(step.take(1))
    with jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options):
        jax.block_until_ready(step.take(_STEPS))
    files = [path for path in _files(folder) if path not in before]
    return TraceRow(str(folder), _STEPS, len(files), sum(path.stat().st_size for path in files))


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
