"""What a study is made of, and everything that is wrong with a study before anything is trained."""

import json
import pathlib

import pytest

from tests import processes, tiny
from vmoe_inform import config as config_lib
from vmoe_inform.studies import plan

OVERRIDES = {"train__batch_size": 512, "train__steps": 6, "optimizer__warmup_steps": 2}


def make(workdir: pathlib.Path, *routers: str, num_seeds: int = 2, **overrides) -> dict[str, list[plan.PlannedRun]]:
    return plan.make(
        routers,
        num_seeds=num_seeds,
        workdir=workdir,
        load=lambda router: tiny.config_dict(router, **(OVERRIDES | overrides)),
    )


def test_runs_differ_in_router_and_seed_only(tmp_path):
    runs = make(tmp_path, "vmoe", "similarity_vmoe", num_seeds=3)
    assert [run.config.seed for run in runs["vmoe"]] == [0, 1, 2]
    assert [run.name for run in plan.every(runs)][:3] == ["vmoe, seed 0", "similarity_vmoe, seed 0", "vmoe, seed 1"]
    flat = [json.loads(json.dumps(config_lib.to_json(runs[router][1].config))) for router in runs]
    assert flat[0]["model"].pop("router") != flat[1]["model"].pop("router")
    assert flat[0] == flat[1]


def test_measured_are_the_ends_of_the_last_two_epochs(tmp_path):
    # 1,433 images in batches of 512 are 2.8 steps an epoch.
    (run,) = {run.measured_steps for run in make(tmp_path, "vmoe")["vmoe"]}
    assert run == (3, 6)
    in_epochs = make(tmp_path, "vmoe", train__steps=None, train__epochs=4.0, train__batch_size=32)["vmoe"][0]
    assert in_epochs.measured_steps == (179 - 45, 179)


@pytest.mark.parametrize("steps", [1, 3])
def test_an_epoch_is_too_short(tmp_path, steps):
    with pytest.raises(ValueError, match=r"train.steps: expected more than one epoch of 2.799 steps.*; received"):
        make(tmp_path, "vmoe", train__steps=steps, optimizer__warmup_steps=0)
    with pytest.raises(ValueError, match=r"train.epochs: expected more than one epoch.*; received 1.0"):
        make(tmp_path, "vmoe", train__steps=None, train__epochs=1.0)


def test_routers_made_equal_by_an_override_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--routers: expected routers that differ.* from vmoe; received 'attention"):
        make(tmp_path, "vmoe", "attention_vmoe", model__router=tiny.config_dict("vmoe").model.router)


def test_routers_with_other_moe_layers_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"--config: expected MoE layers in the same blocks .*vmoe are \(1,\); received"
    ):
        make(tmp_path, "vmoe", "alternate_vmoe")


def test_unknown_suite(tmp_path):
    with pytest.raises(ValueError, match=r"evaluation.suites: expected one of .*; received 'q'"):
        make(tmp_path, "vmoe", evaluation__suites=("clean", "q"))


def test_a_folder_of_another_config_is_refused(tmp_path):
    run = make(tmp_path, "vmoe")["vmoe"][1]
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps(config_lib.to_json(run.config)))
    assert make(tmp_path, "vmoe")
    # A longer training goes on in `train`, but here the routers would have learned on different schedules.
    with pytest.raises(ValueError, match=r"workdir: expected the settings in .*seed_1.*: train.steps: 6 -> 9$"):
        make(tmp_path, "vmoe", train__steps=9)


def test_folder_names_are_safe_and_distinct():
    names = ["vmoe", "a@similarity.metric=cosine", "a@b=../x", "a@b=%2E", "a@b=(1, 2)"]
    folders = [plan.folder_name(name) for name in names]
    assert folders[:2] == names[:2]
    assert len(set(folders)) == len(names)
    assert all(len(pathlib.Path(folder).parts) == 1 for folder in folders)


def test_the_router_joins_the_argument():
    assert plan.with_router("configs/digits.py", "vmoe") == "configs/digits.py:router=vmoe"
    assert plan.with_router("d.py:experts=4,where=1", "vmoe") == "d.py:experts=4,where=1,router=vmoe"


GOOD = {"routers": ["vmoe", "glam"], "against": "vmoe", "num_seeds": 2, "jobs": 1, "file": "d.py", "overrides": {}}


def test_a_good_request_passes():
    plan.check_request(**GOOD)


def test_help_alone_lists_the_routers():
    assert "attention_vmoe " in processes.run("study", "--routers=help")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"routers": []}, "--routers: expected a comma list of routers; received nothing"),
        ({"routers": ["vmoe", "vmoe"]}, "--routers: expected each router once.*; received 'vmoe,vmoe'"),
        ({"routers": ["vmoe", "help"]}, "--routers: expected names of routers, or help alone; received 'vmoe,help'"),
        ({"against": "base"}, "--against: expected one of the routers vmoe, glam; received 'base'"),
        ({"num_seeds": 1}, "--seeds: expected 2 or more .*; received 1"),
        ({"jobs": 0}, "--jobs: expected 1 or more; received 0"),
        ({"file": "d.py:experts=4, router=vmoe"}, "--config: expected an argument without router="),
        ({"overrides": {"seed": 3}}, "--config.seed: expected nothing.*; received 3"),
    ],
)  # fmt: skip
def test_bad_requests(wrong, message):
    with pytest.raises(ValueError, match=message):
        plan.check_request(**(GOOD | wrong))


def test_steps_between_the_measurements(tmp_path):
    """A short training on a large corpus, whose epoch it does not see, is measured this long before its end."""
    arguments = {"num_seeds": 2, "workdir": tmp_path, "load": lambda router: tiny.config_dict(router, **OVERRIDES)}
    runs = plan.make(["vmoe"], **arguments, steps_between=2)
    assert runs["vmoe"][0].measured_steps == (4, 6)
    with pytest.raises(ValueError, match="--steps_between: expected less than the 6 training steps; received 6"):
        plan.make(["vmoe"], **arguments, steps_between=6)
