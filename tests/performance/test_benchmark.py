"""What the benchmarks say, on shapes so small that times mean nothing: no test looks at one."""

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
import types

import jax.numpy as jnp
import pytest

from tests import processes, tiny, tiny_text
from vmoe_inform import config as config_lib
from vmoe_inform import tasks
from vmoe_inform.nn.operations import training_flops_per_sequence
from vmoe_inform.performance import evaluation, inform, layer, peers, step, tables
from vmoe_inform.performance import input as input_lib
from vmoe_inform.performance.timing import Spread


def _model(router: str = "vmoe", **overrides) -> config_lib.ModelConfig:
    return config_lib.parse_model(tiny.config_dict(router, **overrides).model)


# Layer


def test_layer_rows_cover_every_combination_and_dear_dispatchers_are_not_timed():
    model = _model(model__moe__capacity_multiple_of=1, model__moe__capacity_factor=1.0)
    gather, reference = layer.measure(
        model,
        experts=(4,),
        images_per_group=(2,),
        dispatchers=("gather", "reference"),
        images=4,
        repeats=2,
        timed_up_to=1.9,
    )
    assert [(row.experts, row.images_per_group, row.dispatch) for row in (gather, reference)] == [
        (4, 2, "gather"),
        (4, 2, "reference"),
    ]
    # Four experts that see every token do twice the work of two MLPs; as many slots as choices do the same.
    assert reference.forward_flops > 1.9 > gather.forward_flops > 1.0
    assert reference.forward_backward_flops > 1.9 > gather.forward_backward_flops > 1.0
    assert gather.forward is not None
    assert gather.forward_backward is not None
    assert gather.forward.repeats == gather.forward_backward.repeats == 2
    assert gather.dropped is not None
    assert 0.0 <= gather.dropped < 0.5
    assert reference.forward is None
    assert reference.forward_backward_milliseconds is None
    assert gather.forward_cycles is None  # a CPU's compiler estimates none
    assert gather.bytes_without_cycles is None


def test_layer_refuses_groups_that_do_not_divide_the_images():
    with pytest.raises(ValueError, match="images of a group: expected a divisor of the 4 images; received 3"):
        list(layer.measure(_model(), experts=(2,), images_per_group=(3,), dispatchers=("gather",), images=4, repeats=1))


# Step


@pytest.mark.slow
def test_step_rows_have_what_they_say_and_nothing_is_compiled_twice():
    config = config_lib.parse(tiny.config_dict())
    rows = step.measure(config, dispatchers=("gather", "einsum", "dense"), against="einsum", repeats=2, matmul_size=64)
    assert [row.dispatch for row in rows] == ["gather", "einsum", "dense"]
    assert [row.compilations for row in rows] == [1, 1, 1]
    gather, einsum, dense = rows
    assert dense.dropped == 0.0
    assert dense.compiled_flops < gather.compiled_flops
    assert einsum.time == einsum.processor_time == Spread(1.0, 1.0, 1.0, 2)
    assert (gather.counted, gather.operations) == ("images", gather.compiled_flops / einsum.compiled_flops)
    assert einsum.speedup == Spread(1.0, 1.0, 1.0, 2)
    assert gather.compiled_flops < einsum.compiled_flops
    # Noise decides: 5 of the 10 tokens of a group come to each of 4 experts on average, with a deviation of 1.6 and
    # 8 slots: a choice in a few hundred is dropped, also after the steps that the router has learned from.
    assert gather.dropped == pytest.approx(einsum.dropped, abs=0.02)
    assert gather.dropped < 0.05
    expected = config.train.batch_size * training_flops_per_sequence(config.model, kept=1.0 - gather.dropped)
    assert gather.useful_flops == pytest.approx(expected)
    assert gather.useful_flops < gather.compiled_flops
    assert gather.useful_gflops.median > 0.0


def test_where_k_grows_the_first_k_counts_and_full_slots_drop_nothing():
    growing = config_lib.parse(tiny.config_dict("smoe_dropout"))
    assert growing.model.moe.num_selected_experts == 2
    assert step.useful_flops(growing, dropped=0.0) == 16 * training_flops_per_sequence(growing.model, k=1)
    metrics = {"routing/block_1/dropped": jnp.asarray(0.25)}
    assert step.dropped_share(_model(), metrics) == 0.25
    # Experts choose: tokens may be left out, slots may not.
    assert step.dropped_share(_model("expert_choice"), metrics) == 0.0


@pytest.mark.parametrize(("layers", "width"), [("every1", 64), ("every2", 48), ((0,), 48)])
def test_the_dense_model_does_the_same_activated_work(tmp_path, layers, width):
    """Two experts of width 32 for each token, in both blocks or in one."""
    config = tiny_text.parse(tmp_path, model__moe__layers=layers)
    dense = step.dense(config)
    assert (dense.model.moe_layers, dense.model.mlp_size) == ((), width)
    router = len(config.model.moe_layers) * 3 * 2 * 8 * 16 * 4  # a product of 8 tokens of width 16 with 4 experts
    assert step.useful_flops(config, dropped=0.0) - step.useful_flops(dense, dropped=0.0) == 8 * router
    assert dataclasses.replace(dense, model=config.model) == config
    with pytest.raises(ValueError, match=r"model\.moe\.layers: expected MoE layers, to compare with a dense model"):
        step.dense(dense)


def test_step_refuses_a_comparison_with_what_is_not_measured():
    config = config_lib.parse(tiny.config_dict())
    with pytest.raises(ValueError, match="against: expected one of gather; received 'einsum'"):
        step.measure(config, dispatchers=("gather",), against="einsum", repeats=1)


# Inform


def test_inform_rows_compare_each_step_with_the_model_without_it():
    steps = ("similarity", "symphony_across_layers")
    size = inform.Size({"image_size_px": 32, "patch_size_px": 8}, sequences=2, block_size=4)
    model = _model(model__moe__layers=(0, 1))  # the second step acts where there is a MoE layer before
    rows = list(inform.measure(model, steps=steps, sizes=(size,), repeats=2))
    assert [(row.tokens, row.sequences, row.block_size, row.inform) for row in rows] == [(17, 2, 4, n) for n in steps]
    assert all(row.time is not None and row.time.repeats == 2 for row in rows)
    assert all(row.temporary == row.temp_bytes / row.plain_temp_bytes for row in rows)
    # A step adds work, but little beside a model's; in blocks too, whose loops count as often as they run.
    assert all(row.flops is not None and 1.0 < row.flops < 1.3 for row in rows)


def test_inform_compares_models_of_text_without_their_head(tmp_path):
    """The causal forms; heads by their running entropies cost no less than nothing, and all heads cost more."""
    model = tiny_text.parse(tmp_path, model__vocabulary_size=4096, model__num_tokens=64).model
    size = inform.Size({"num_tokens": 32}, sequences=2)
    compared = functools.partial(inform.measure, model, steps=("attention",), sizes=(size,), repeats=1, topology=None)
    (running,) = compared(options={"attention": {"heads": "running"}}, timed_up_to_seconds=0.0)
    (prefix,) = compared(options={"attention": {"heads": "prefix"}}, timed_up_to_seconds=0.0)
    assert (running.tokens, running.sequences, running.inform) == (32, 2, "attention")
    # With the head, 4096 words wide, neither would be visible: it does 16 times the work of all else.
    assert 1.02 < running.flops < prefix.flops
    assert running.time is None


def test_inform_takes_no_times_where_the_plain_model_takes_too_long():
    size = inform.Size({"image_size_px": 32, "patch_size_px": 16}, sequences=2)
    (row,) = inform.measure(_model(), steps=("symphony",), sizes=(size,), repeats=1, timed_up_to_seconds=0.0)
    assert row.time is None
    assert row.plain_milliseconds is None
    assert row.flops is not None
    assert 1.0 < row.flops < 1.1


def test_inform_compiles_evaluation_for_a_tpu_and_adds_up_its_schedules(tmp_path):
    """In a process of its own: the compiler is told once where to write."""
    command = (
        *(sys.executable, "-m", "vmoe_inform.benchmark", "inform", "--steps=symphony", "--images=8"),
        *("--config=configs/digits.py:router=vmoe", "--config.model.num_layers=2", "--config.model.dtype=bfloat16"),
        *("--topology=v5e:1x1", f"--json={tmp_path / 'found.json'}"),
    )
    subprocess.run(command, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["header"]["model"]["moe"]["capacity_factor_evaluation"] == 4.0  # that of the recipe
    (row,) = found["rows"]
    assert (row["sequences"], row["inform"]) == (8, "symphony")
    for ratio in ("flops", "cycles", "scheduled", "longest"):
        assert 0.9 < row[ratio] < 1.5, ratio
    assert row["bytes_without_cycles"] >= 0


def test_inform_needs_a_model_that_is_not_informed():
    with pytest.raises(ValueError, match=r"model\.router\.inform: expected 'none', to compare with; received"):
        list(inform.measure(_model("similarity_vmoe"), steps=("symphony",), sizes=(), repeats=1))


# Peers


def _peer(tmp_path, text: str) -> peers.Build:
    file = tmp_path / "other.py"
    file.write_text(text)
    return peers.load(file)


def test_peers_take_turns_with_ours_on_the_same_normalised_images(tmp_path):
    given = {}

    def build(config, images, labels):
        given.update(size=config.model.image_size_px, images=images, labels=labels)
        return {"evaluation": lambda: given.update(calls=given.get("calls", 0) + 1)}

    config = config_lib.parse(tiny.config_dict(**tiny.ONE_BLOCK))
    rows = peers.measure(config, {"other": build}, repeats=2)
    assert [(row.work, row.program) for row in rows] == [
        ("training", "vmoe_inform"),
        ("evaluation", "vmoe_inform"),
        ("evaluation", "other"),
    ]
    ours, other = rows[1:]
    assert ours.ours_over == ours.ours_over_processor == Spread(1.0, 1.0, 1.0, 2)
    assert other.ours_over.median < 1.0  # it does nothing
    assert other.rate.median > ours.rate.median
    assert given["calls"] == 3  # one round warms up
    assert given["images"].shape == (16, given["size"], given["size"], 3)
    assert given["images"].dtype == jnp.float32
    assert -1.0 <= given["images"].min() < 0.0 < given["images"].max() <= 1.0
    with pytest.raises(ValueError, match="build of other: expected steps for training or evaluation; received"):
        peers.measure(config, {"other": lambda *_: {"testing": lambda: None}}, repeats=1)


def test_files_of_peers_are_run_and_have_to_build(tmp_path):
    assert _peer(tmp_path, "def build(config, images, labels): return {}")(None, None, None) == {}
    with pytest.raises(ValueError, match=r"a function build\(config, images, labels\) in .*other\.py; received None"):
        _peer(tmp_path, "x = 1  # of another length")
    with pytest.raises(ValueError, match=r"other\.py to run; received .*ZeroDivisionError: division by zero"):
        _peer(tmp_path, "1 / 0")


def test_peers_are_compared_on_images_only(tmp_path):
    with pytest.raises(ValueError, match=r"model\.inputs: expected 'images', to compare with peers; received 'tokens'"):
        peers.measure(tiny_text.parse(tmp_path), {}, repeats=1)


# Input


def test_draining_counts_the_images_after_the_first_batch():
    config = config_lib.parse(tiny.config_dict())
    task = tasks.from_config(config).opened()
    times = iter([100.0, 101.0, 104.0])  # the first batch is there, then two more batches of 16
    assert input_lib.drain(task, seconds=3.5, clock=lambda: next(times)) == 2 * 16 / 4.0


def test_input_row_has_both_rates():
    config = config_lib.parse(tiny.config_dict())
    (row,) = input_lib.measure(config, repeats=2, seconds=0.01)
    assert (row.source, row.image_size_px, row.tokens, row.num_threads) == ("digits", 32, None, 0)
    assert (row.batch_size, row.counted) == (16, "images")
    assert row.over_step.repeats == 2
    assert row.over_step.lower > 0.0


# Evaluation


def test_evaluation_row_has_rates_of_all_parts_and_images_are_copied_once():
    config = config_lib.parse(tiny.config_dict(evaluation__batch_size=512))
    (row,) = evaluation.measure(config, repeats=1, seconds=0.0)
    assert (row.source, row.image_size_px, row.num_workers, row.batch_size, row.images) == ("digits", 32, 0, 512, 2048)
    assert min(rate.median for rate in (row.images_per_second, row.host, row.devices)) > 0.0
    assert row.device_waits.median < 1.0
    assert row.milliseconds_besides_decoding.median > 0.0
    assert row.copied_over_own == 1.0


def test_the_time_of_devices_is_until_all_batches_are_computed():
    left = []

    class Outputs:
        def __init__(self):
            left.append(self)

        def block_until_ready(self):
            left.remove(self)

    program = types.SimpleNamespace(in_use=contextlib.nullcontext, to_devices=lambda batch: batch)
    devices = evaluation.Devices(program, lambda *arguments: (Outputs(), None), {}, {})
    devices.seconds(7)
    assert left == []


# Tables


@dataclasses.dataclass(frozen=True)
class _Row:
    name: str
    time_ratio: Spread | None
    temp_bytes: int
    cycles: float | None


ROWS = (_Row("one", Spread(1.0, 0.96, 1.25, 3), 12345, None), _Row("other", None, 7, None))


def test_flat_rows_have_a_field_for_every_number():
    assert tables.flatten(ROWS[0]) == {
        "name": "one",
        "time_ratio": 1.0,
        "time_ratio_lower": 0.96,
        "time_ratio_upper": 1.25,
        "time_ratio_repeats": 3,
        "temp_bytes": 12345,
        "cycles": None,
    }
    assert tables.flatten(ROWS[1])["time_ratio"] is None


def test_table_is_aligned_and_leaves_empty_columns_out():
    assert tables.render(ROWS).splitlines() == [
        "                       time    temp",
        " name                 ratio   bytes",
        "  one  1.000 [0.960, 1.250]  12,345",
        "other                     -       7",
    ]


# Command line


def test_command_line_prints_a_table_and_writes_flat_rows(tmp_path):
    path = tmp_path / "rows.json"
    flags = ("--variant=Ti/32", "--experts=2", "--groups=1", "--images=1", "--dispatch=gather", "--repeats=1")
    printed = processes.run("benchmark", "layer", *flags, f"--json={path}")
    assert "gather" in printed.splitlines()[-1].split()
    document = json.loads(path.read_text())
    assert document["header"]["benchmark"] == "layer"
    assert document["header"]["tokens"] == 50
    assert {"jax", "device_kind", "cpu_count", "dtype"} <= set(document["header"])
    (row,) = document["rows"]
    assert (row["experts"], row["images_per_group"], row["dispatch"]) == (2, 1, "gather")
    assert row["forward_repeats"] == 1
    assert row["forward_lower"] == row["forward"] == row["forward_upper"] > 0.0


BAD_COMMAND_LINES = {
    (): "experts, input, evaluate, start, and flags; received nothing",
    ("lyaer",): "start, and flags; received 'lyaer' (did you mean 'layer'?)",
    ("input", "--experts=3"): "benchmark input: expected flags among --json, --repeats, --config, --against, ",
    ("input", "--against=torch"): "--against: expected tf.data; received 'torch'",
    ("input", "--against=tf.data", "--photographs=nowhere"): "expected a folder with JPEG files; received 'nowhere'",
    ("input", "--photographs=."): "benchmark input: expected no --photographs without --against=tf.data",
    ("input", "--against=tf.data", "--config=configs/digits.py"): "expected no --config with --against=tf.data",
    ("evaluate", "--images=3"): "benchmark evaluate: expected flags among --json, --repeats, --config; received",
    ("evaluate", "--config=configs/wordnet.py"): "model.inputs: expected 'images'; received 'tokens'",
    ("inform", "--config=configs/wordnet.py", "--size=S"): "benchmark inform: expected no --size with --config",
    ("inform", "--config=configs/digits.py", "--tokens=50"): "benchmark inform: expected no --tokens with --config",
    ("inform", "--config=configs/digits.py", "--block_size=9"): "inform: expected no --block_size with --config",
    ("peers", "--peers=nowhere.py"): "--peers: expected Python files; received 'nowhere.py'",
    ("peers", "--peers=a/one.py,b/one.py"): "--peers: expected files of different names, none of them vmoe_inform.py;",
    ("start", "--before=nowhere"): "--before: expected a folder with vmoe_inform/train.py; received 'nowhere'",
    ("layer", "--groups=0"): "--groups: expected tuple of int >= 1 and <= 1048576; received 0",
}
IMPORTED = ("performance.decoding", "performance.layer", "performance.peers", "performance.tables")


def test_bad_command_lines_are_one_line(tmp_path):
    results = processes.run_many("benchmark", list(BAD_COMMAND_LINES), tmp_path, imports=IMPORTED)
    for (code, printed, errors), message in zip(results, BAD_COMMAND_LINES.values(), strict=True):
        assert code == 2, printed + errors
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert message in line
        assert "Traceback" not in errors
