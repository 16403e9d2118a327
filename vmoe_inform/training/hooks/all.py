"""The hooks of a run, in their order."""

import contextlib
from collections.abc import Callable, Sequence

from vmoe_inform import config as config_lib
from vmoe_inform.runs.folder import with_kept_tokenizer
from vmoe_inform.sharding import processes
from vmoe_inform.training.hooks.base import Hook
from vmoe_inform.training.hooks.evaluate import Evaluate
from vmoe_inform.training.hooks.log import Log
from vmoe_inform.training.hooks.profile import Profile
from vmoe_inform.training.hooks.save import Save
from vmoe_inform.training.hooks.stop import Stop
from vmoe_inform.training.hooks.watch import Watch
from vmoe_inform.training.measurements import Window
from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.setup import Plan, Setup
from vmoe_inform.training.stopping import StopRequest
from vmoe_inform.training.terminal import Terminal


def hooks_of(
    plan: Plan,
    run: Setup,
    stack: contextlib.ExitStack,
    terminal: Terminal,
    *,
    stop: StopRequest,
    save_at_steps: Sequence[int],
) -> list[Hook]:
    """The hooks of a run. Their order matters:

    * a step that is not finite is found before it is logged or saved;
    * a state is saved before it is evaluated, so that an evaluation that is killed is made up for;
    * the last save comes before the last evaluation, and before the log says that the run stopped.

    Args:
      plan: from :mod:`vmoe_inform.training.setup`.
      run: from the same.
      stack: closes what is opened here.
      terminal: says what takes time.
      stop: as of :func:`vmoe_inform.training.loop.train`.
      save_at_steps: as of the same.
    """
    config, workdir, training = plan.config, plan.workdir, run.training
    logger = MetricsLogger(
        workdir,
        config.train.writers,
        start_step=training.step,
        config=config_lib.to_json(config),
        evaluates_again=run.has_new_results,
        is_main_process=processes.is_main(),
    )
    stack.enter_context(logger)
    watch = Watch(run.watchdog, run.program.state_shapes.params, config.train.max_nonfinite_steps)
    stopping = Stop(stop, run.program.mesh)
    counters: dict[str, Callable[[], int]] = {"skipped_records": lambda: run.skipped.count}
    if config.train.max_nonfinite_steps:
        counters["skipped_steps"] = lambda: watch.skipped
    log = Log(
        logger,
        terminal,
        Window(plan.task, run.program.mesh),
        shown=(*plan.task.shown, plan.task.rate),
        every_steps=config.train.log_every_steps,
        total_steps=training.total_steps,
        last_step=training.last_step,
        lock=run.lock,
        counters=counters,
    )
    profile = Profile(
        workdir,
        config.profile,
        first_step=training.step,
        last_step=training.last_step,
        process=processes.index_and_count()[0],
        watchdog=run.watchdog,
    )
    save = Save(
        run.checkpoints,
        config.checkpoint,
        steps=save_at_steps,
        lock=run.lock,
        watchdog=run.watchdog,
        terminal=terminal,
        logger=logger,
    )
    evaluate = Evaluate(
        with_kept_tokenizer(config, workdir),
        workdir,
        plan.task,
        plan.suites,
        program=run.program,
        predictor=run.predictor,
        logger=logger,
        stop=stopping,
        terminal=terminal,
    )
    return [watch, log, stack.enter_context(profile), save, evaluate, stopping]
