"""Made-up results of runs, for tests of what is done with them."""

from vmoe_inform.evaluation.results import LayerRouting, Missing, SuiteResult
from vmoe_inform.studies.results import CheckpointResult, RunResult


def result(
    router: str,
    seed: int,
    *,
    clean: float = 0.9,
    entropy: float = 1.0,
    fluctuation: float = 0.1,
    collapsed: float | None = None,
) -> RunResult:
    """Of one run."""

    def epoch(step: int, top1: float) -> CheckpointResult:
        neighbours = 2.0 if router == "mixing" else 1.0
        return CheckpointResult(
            step,
            {"clean": SuiteResult(100, {"top1": top1}), "o": SuiteResult(50, {"aupr": 0.5}, headline="aupr")},
            {"block_1": LayerRouting(entropy, (0.5, 0.5, 0.0, 0.0), neighbours, 0.0, collapsed)},
            {"c": Missing("install it")},
        )

    return RunResult(
        router=router,
        seed=seed,
        config_hash="0" * 16,
        parameters=1000,
        flops={"training_step": 100.0 if router == "plain" else 125.0, "evaluation_batch": 40.0},
        seconds={"training": 1.0, "evaluation": 1.0},
        before=epoch(3, clean - 0.1),
        last=epoch(6, clean),
        fluctuation={"block_1": fluctuation},
    )
