"""Steps compiled for TPUs that are not there."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from configs import wikitext103
from tests import processes, tiny
from vmoe_inform import config as config_lib
from vmoe_inform.performance import check, topology

ROOT = pathlib.Path(__file__).parents[2]


def compile_check(*arguments: str, code: int) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "TPU_"))}
    command = [sys.executable, "-m", "vmoe_inform.compile_check", *arguments]
    process = subprocess.run(
        command, cwd=ROOT, env=environment | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False
    )
    assert process.returncode == code, process.stdout + process.stderr
    return process


TINY = (
    "--config=configs/digits.py:router=vmoe,variant=Ti/16,experts=4,where=0",
    "--config.model.num_layers=1",
    "--config.model.hidden_size=16",
    "--config.model.mlp_size=32",
    "--config.mesh.expert=4",
    "--topology=v5e:2x2",
)


def test_train_step_from_the_command_line(tmp_path):
    """One MoE layer: rows to the experts and back, and their gradients the same way; nothing is sent to everyone."""
    path = tmp_path / "figures.json"
    process = compile_check(*TINY, "--per_device_batch=8", "--schedules", f"--json={path}", code=0)
    assert process.stderr == ""  # nor do the compiler's libraries complain that there is no TPU
    assert "train step of 32 images, 4 devices (TPU v5 lite), replica 1 x fsdp 1 x expert 4" in process.stdout
    figures = json.loads(path.read_text())
    often = {name: count for name, (count, _) in figures["collectives"].items()}
    assert set(often) == {"all-to-all", "all-reduce"}
    assert often["all-to-all"] == 4
    # E C rows of width 16: a group of 8 images of 4 tokens has 2 * 32 choices, for which 4 experts have twice the slots
    # they need: C = 32. A TPU multiplies in bfloat16, so that the compiler may send half of 4 bytes.
    rows = 4 * 32 * 16
    assert 4 * rows * 2 <= figures["collectives"]["all-to-all"][1] <= 4 * rows * 4
    assert figures["fits"] is True
    cycles = figures["schedule"]
    assert cycles["estimated"] == figures["estimated_cycles"]
    assert 0 <= cycles["without_schedule"] < 0.1 * cycles["longest"]
    assert max(cycles[name] for name in ("scheduled", "at_peak", "by_bandwidth")) <= cycles["longest"]
    assert re.search(r"cycles by the final schedules:\n  scheduled  .*\n(.*\n){2}  longest  ", process.stdout)
    assert figures["problem"] is None
    assert (figures["num_devices"], figures["num_slices"]) == (4, 1)
    assert (figures["examples"], figures["step"], figures["across_slices"]) == (32, "train", {})
    assert figures["hbm_bytes"] == 16 * 2**30
    assert figures["optimizer_bytes"] == 2 * figures["parameter_bytes"] + 4 * 2  # two moments, two counters
    assert figures["argument_bytes"] > figures["parameter_bytes"] + figures["optimizer_bytes"]
    for name in ("estimated_cycles", "flops", "bytes_accessed", "temp_bytes", "peak_bytes", "code_bytes"):
        assert figures[name] > 0
    assert figures["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("step", ["train", "eval"])
def test_steps_of_text(step):
    """Carried memory is part of the state; the words of both are tokens."""
    config = wikitext103.get_config("router=similarity_smoe_top2,size=tiny,experts=4")
    config.model.num_layers = 1
    config.model.vocabulary_size = 1000
    config.train.batch_size = config.evaluation.batch_size = 8
    result = check.compile_step(config_lib.parse(config), topology.devices_of("v5e:2x2"), step)
    assert (result.examples, result.size, result.problem) == (8, "256 tokens", None)
    assert f"{step} step of 256 tokens, 4 devices" in check.lines(result)[0]
    assert result.costs is not None
    assert result.costs.flops > 0


def test_eval_step_sends_rows_to_the_experts_and_back():
    """On two slices, each with all experts: no row leaves its slice, only the logits of the device's own images."""
    config = config_lib.parse(tiny.config_dict(mesh__expert=4, model__num_layers=1, model__moe__layers=(0,)))
    result = check.compile_step(config, topology.devices_of("v5e:2x2", 2), "eval")
    assert result.costs is not None
    collectives = result.costs.collectives
    assert collectives["all-to-all"][0] == 2
    # The logits of 64 images go to everyone; tokens would be several times as much.
    assert collectives["all-gather"] == (1, 64 * 10 * 4)
    assert set(collectives) == {"all-to-all", "all-gather"}
    assert result.costs.across_slices == {"all-gather": (1, 8 * 10 * 4)}
    assert (result.examples, result.optimizer_bytes, result.problem) == (64, 0, None)
    assert result.mesh == {"replica": 2, "fsdp": 1, "expert": 4}
    shown = check.lines(result)
    assert shown[0].startswith("eval step of 64 images, 2 slices of 4 devices (TPU v5 lite), replica 2 x fsdp 1 x ")
    at = shown.index("across slices, sent by each device, and at most by a slice:")
    assert shown[at + 1].split() == ["all-gather", "0.0", "MiB", "1", "times", "0.0", "MiB"]


def test_what_does_not_fit_is_said_in_the_compilers_words():
    device = topology.devices_of("v5e:1x1")[0]
    shape = jax.ShapeDtypeStruct((100_000, 100_000), jnp.float32, sharding=SingleDeviceSharding(device))
    compiled, problem = check._compile(jax.jit(lambda x: x @ x).lower(shape))
    assert compiled is None
    assert "exceeds available HBM (15.75G)" in problem


def test_figures_of_what_does_not_fit():
    nothing = check.Check(
        "train", 8, "8 images", "TPU v5 lite", 4, 1, {"replica": 4}, 16, 1, 2, 0.1, 0.2, None, "too large"
    )
    figures = nothing.to_json()
    assert (figures["fits"], figures["problem"], figures["parameter_bytes"]) == (False, "too large", 1)
    assert "costs" not in figures
    assert figures["estimated_cycles"] is figures["collectives"] is figures["peak_bytes"] is None


def test_bytes_of_a_device_are_those_of_its_part():
    config = config_lib.parse(tiny.config_dict(mesh__expert=4, mesh__replica=2))
    state = check.program_lib.build(config, 8).state_shapes
    experts = state.params["block_1"]["moe"]["experts"]["hidden"]["kernel"]
    assert experts.shape == (4, 16, 32)
    assert check.device_bytes(experts) == 16 * 32 * 4  # one expert of four
    router = state.params["block_1"]["moe"]["router"]
    assert check.device_bytes(router) == sum(leaf.size * 4 for leaf in jax.tree.leaves(router))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"mesh__expert": 4, "mesh__replica": 2},
            r"mesh: expected replica x fsdp x expert = 4 devices; received '2 x 1 x 4'",
        ),
        ({"train__batch_size": 20}, r"train.batch_size: expected a multiple of 4 devices x 2 sequences of a group"),
        ({"evaluation__batch_size": 36}, r"evaluation.batch_size: expected a multiple of 4 devices x 2 sequences"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        check.compile_step(config_lib.parse(tiny.config_dict(**overrides)), jax.devices()[:4], "train")


def test_bad_input_is_one_line(tmp_path):
    config_only = [flag for flag in TINY if not flag.startswith("--topology")]
    lines = {
        (*config_only, "--topology=v5e:huge"): "error: topology: expected v2, v3, v5e and v6e with two lengths "
        "(v5e:4x4), v4, v5p and tpu7x with three (v4:2x2x2); received 'v5e:huge'",
        (*TINY, "--num_slices=0"): "error: --num_slices: expected int >= 1 and <= 256; received 0",
    }
    received = processes.run_many("compile_check", list(lines), tmp_path)
    assert received == [(2, "", f"{line}\n") for line in lines.values()]
