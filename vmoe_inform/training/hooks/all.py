"""The hooks of a run, in their order."""

import contextlib
from collections.abc import Callable, Sequence

from vmoe_inform.sharding import processes
from vmoe_inform.training.hooks.base import Hook
from vmoe_inform.training.hooks.evaluate import Evaluate
from vmoe_inform.training.hooks.log import Log
from vmoe_inform.training.hooks.profile import Profile
from vmoe_inform.training.hooks.save import Save
from vmoe_inform.training.hooks.stop import Stop
from vmoe_inform.training.hooks.watch import Watch
from vmoe_inform.training.logging import MetricsLogger, Progress
from vmoe_inform.training.measurements import Window
from vmoe_inform.training.setup import Plan, Setup
from vmoe_inform.training.stopping import StopRequest


def hooks_of(
    plan: Plan,
    run: Setup,
    stack: contextlib.ExitStack,
    *,
    stop: StopRequest,
    save_at_steps: Sequence[int],
    show_progress: bool,
) -> list[Hook]:
    """The hooks of a run. Their order matters:

    * a step that is not finite is found before it is logged or saved;
    * a state is saved before it is evaluated, so that an evaluation that is killed is made up for;
    * the last save comes before the last evaluation, and before the log says that the run stopped.

    Args:
      plan, run: from :mod:`vmoe_inform.training.setup`.
      stack: closes what is opened here.
      stop, save_at_steps, show_progress: as of :func:`vmoe_inform.training.loop.train`.
    """
    config, workdir, training = plan.config, plan.workdir, run.training
    process, is_main = processes.place()[0], processes.is_main()
    logger = stack.enter_context(MetricsLogger(workdir, start_step=training.step, is_main_process=is_main))
    progress = stack.enter_context(
        Progress(training.total_steps, training.step, is_main_process=is_main and show_progress)
    )
    watch = Watch(run.watchdog, run.program.state_shapes.params, config.train.max_nonfinite_steps)
    stopping = Stop(stop, run.program.mesh)
    counters: dict[str, Callable[[], int]] = {"skipped_records": lambda: run.skipped.count}
    if config.train.max_nonfinite_steps:
        counters["skipped_steps"] = lambda: watch.skipped
    log = Log(
        logger,
        progress,
        Window(config, run.program.mesh),
        every_steps=config.train.log_every_steps,
        last_step=training.last_step,
        lock=run.lock,
        counters=counters,
    )
    profile = Profile(
        workdir,
        config.profile,
        first_step=training.step,
        last_step=training.last_step,
        process=process,
        watchdog=run.watchdog,
    )
    save = Save(run.checkpoints, config.checkpoint, steps=save_at_steps, lock=run.lock, watchdog=run.watchdog)
    evaluate = Evaluate(
        run.predictor,
        plan.test_source,
        config,
        logger=logger,
        workdir=workdir,
        watchdog=run.watchdog,
        stop=stopping,
    )
    return [watch, log, stack.enter_context(profile), save, evaluate, stopping]
