"""Every process of a run, and every restart of it, lowers the same programs: what differs is compiled again, and
processes that execute different programs wait for each other. ``python -m`` this file prints the programs.
"""

import json
import os
import subprocess
import sys

from tests import processes, tiny
from vmoe_inform import config as config_lib
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.training import program

# Together: states, noise, several losses, losses of a score step, K that grows.
NOISY = {"model__router__noise_std": 0.1, "model__router__losses": ("importance", "switch", "z")}
ROUTERS = {"symphony_smoe_dropout": NOISY, "stablemoe": {}}


def lowered(router: str) -> dict[str, str]:
    """The text of each compiled function of a run, with every part of a training step turned on."""
    config = config_lib.parse(
        tiny.config_dict(
            router,
            **tiny.ONE_BLOCK,
            **ROUTERS[router],
            train__ema_decay=0.9,
            train__max_nonfinite_steps=2,
            train__mixup_alpha=0.2,
            train__cutmix_alpha=1.0,
            optimizer__frozen=("position_embedding",),
            optimizer__multipliers=(("head", 2.0),),
        )
    )
    built = program.build(config, config.train.steps or 1)
    predictor = Predictor(built.model, built.task, built.mesh)
    with built.in_use():
        functions = {
            "initialize": built.initialize.func.lower(*built.initialize.args),
            "train_step": built.train_step.lower(built.state_shapes, built.batch_shapes),
            "evaluation": predictor.lower(built.state_shapes.variables(averaged=True)),
        }
    return {f"{router}: {name}": function.as_text() for name, function in functions.items()}


def test_the_order_of_sets_changes_no_program():
    """Python orders a set of strings by their hashes, which differ from process to process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.test_same_program"],
            cwd=processes.ROOT,
            env=environment | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    one, two = (json.loads(process.communicate()[0]) for process in started)
    assert one.keys() == two.keys()
    assert len(one) == 3 * len(ROUTERS)
    assert [name for name in one if one[name] != two[name]] == []


if __name__ == "__main__":
    print(json.dumps({name: text for router in ROUTERS for name, text in lowered(router).items()}))
