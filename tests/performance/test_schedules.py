"""Cycles from a compiler's final schedules, of programs that are written out here."""

import math
import os

import pytest

from vmoe_inform.performance.costs import _bundles, schedules
from vmoe_inform.sharding.chips import CHIPS, Tpu

TEXT = """HloModule jit_f, is_scheduled=true

%fused (p: bf16[256,128], q: bf16[128,128]) -> bf16[256,128] {
  %p = bf16[256,128]{1,0} parameter(0)
  %q = bf16[128,128]{1,0} parameter(1)
  ROOT %dot = bf16[256,128]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (x: bf16[256,128], w: bf16[128,128]) -> bf16[256,128] {
  %x = bf16[256,128]{1,0} parameter(0)
  %w = bf16[128,128]{1,0} parameter(1)
  %fusion.1 = bf16[256,128]{1,0} fusion(%x, %w), kind=kOutput, calls=%fused, backend_config={"window_config":\
{"iteration_bounds":["2","3","1"]},"estimated_cycles":"700"}
  ROOT %kernel.1 = bf16[256,128]{1,0} custom-call(%fusion.1, %w), custom_call_target="tpu_custom_call", \
metadata={op_name="jit(f)/transpose(jvp(runs=4))/experts/pallas_call"}, \
backend_config={"custom_call_config":{"cost_estimate":{"flops":"13107200"}}}
}
"""


def write(folder, name, count):
    analysis = f"Schedule analysis:\n\ttotal scheduled bundles:    {count}\n\tempty scheduled bundles:    9\n"
    (folder / f"1795-{name}-02-schedule-analysis_final_bundles.txt").write_text(analysis)


def test_runs_of_fusions_and_kernels_bytes_and_operations(tmp_path):
    chip = CHIPS["v5e"]
    assert isinstance(chip, Tpu)
    for name, count in (("fusion.1", 10), ("kernel.1", 500), ("fusion.10", 7), ("<late-finalization>", 3)):
        write(tmp_path, name, count)
    found = schedules.of(TEXT, tmp_path, chip)
    bytes_of_rows, bytes_of_matrix = 256 * 128 * 2, 128 * 128 * 2
    by_bandwidth = (2 * bytes_of_rows + bytes_of_matrix) * 1.5e9 / 819e9  # 300.1, of either
    assert found.scheduled == 10 * 6 + 500 * 4
    assert found.at_peak == 64 + 100  # 8.4 and 13.1 MFLOP, at 131,333 a cycle
    assert found.by_bandwidth == pytest.approx(2 * by_bandwidth, abs=2)
    assert found.longest == 301 + 2000  # the fusion waits for memory, and the kernel does not
    assert found.estimated == 700 + 100


ALIKE = """HloModule jit_f, is_scheduled=true

%one (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)
  ROOT %twice = f32[8,128]{1,0:T(8,128)} add(%a, %a), metadata={op_name="jit(f)/first"}
}

%two (b: f32[8,128]) -> f32[8,128] {
  %b = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)
  ROOT %doubled = f32[8,128]{1,0:T(8,128)} add(%b, %b), metadata={op_name="jit(f)/second"}
}

%three (c: f32[8,128]) -> f32[8,128] {
  %c = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)
  ROOT %square = f32[8,128]{1,0:T(8,128)} multiply(%c, %c)
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %copy.1 = f32[8,128]{1,0:T(8,128)S(1)} copy(%x)
  %fusion.1 = f32[8,128]{1,0:T(8,128)} fusion(%copy.1), kind=kLoop, calls=%one, backend_config={"estimated_cycles":"9"}
  %copy.2 = f32[8,128]{1,0:T(8,128)S(1)} copy(%fusion.1)
  %fusion.2 = f32[8,128]{1,0:T(8,128)} fusion(%copy.2), kind=kLoop, calls=%two, backend_config={"estimated_cycles":"9"}
  %copy.3 = f32[8,128]{1,0:T(8,128)S(1)} copy(%fusion.2)
  ROOT %fusion.3 = f32[8,128]{1,0:T(8,128)} fusion(%copy.3), kind=kLoop, calls=%three
}
"""


def test_fusions_that_share_code_count_once_each_and_arrays_on_the_chip_are_not_read(tmp_path):
    for name, count in (("fusion.2", 5), ("copy.1", 2)):
        write(tmp_path, name, count)
    found = schedules.of(ALIKE, tmp_path, CHIPS["v5e"])
    assert found.scheduled == 2 * 5 + 3 * 2
    assert found.estimated == 2 * 9
    one_array = math.ceil(8 * 128 * 4 * 1.5e9 / 819e9)
    assert found.by_bandwidth == 6 * one_array  # each writes, or reads, one
    assert found.without_schedule == one_array  # of fusion.3, which does something else


LOOP = """HloModule jit_g, is_scheduled=true

%body (state: (s32[], f32[1024])) -> (s32[], f32[1024]) {
  %state = (s32[], f32[1024]{0}) parameter(0)
  %number = s32[] get-tuple-element(%state), index=0
  %values = f32[1024]{0} get-tuple-element(%state), index=1
  %doubled = f32[1024]{0} add(%values, %values)
  %reversed = f32[1024]{0} reverse(%doubled), dimensions={0}
  ROOT %next = (s32[], f32[1024]{0}) tuple(%number, %reversed)
}

%condition (state.1: (s32[], f32[1024])) -> pred[] {
  %state.1 = (s32[], f32[1024]{0}) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (x: (s32[], f32[1024])) -> (s32[], f32[1024]) {
  %x = (s32[], f32[1024]{0}) parameter(0)
  ROOT %loop = (s32[], f32[1024]{0}) while(%x), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
}
"""


def test_a_loop_runs_as_often_as_it_says_and_what_has_no_schedule_takes_its_bytes(tmp_path):
    write(tmp_path, "doubled", 90)
    found = schedules.of(LOOP, tmp_path, CHIPS["v5e"])
    by_bandwidth = 16  # ceil(8,192 bytes * 1.5e9 / 819e9)
    assert found.scheduled == 5 * 90
    assert found.without_schedule == 5 * by_bandwidth
    assert found.longest == 5 * (90 + by_bandwidth)


def test_code_of_unequal_lengths_is_nobody_elses(tmp_path):
    for name, count in (("fusion.1", 5), ("copy.1", 2), ("copy.3", 3)):
        write(tmp_path, name, count)
    found = schedules.of(ALIKE, tmp_path, CHIPS["v5e"])
    one_array = math.ceil(8 * 128 * 4 * 1.5e9 / 819e9)
    assert found.scheduled == 2 * 5 + 2 + 3
    assert found.without_schedule == 2 * one_array  # of copy.2, which may be like either, and of fusion.3


AHEAD = """HloModule jit_h, is_scheduled=true

ENTRY %main (x: f32[1024,1024], y: f32[1024,512], z: f32[1024,128]) -> f32[1024,512] {
  %x = f32[1024,1024]{1,0:T(8,128)} parameter(0)
  %y = f32[1024,512]{1,0:T(8,128)} parameter(1)
  %z = f32[1024,128]{1,0:T(8,128)S(1)} parameter(2)
  %slice-start = ((f32[1024,1024]{1,0:T(8,128)}), f32[1024,512]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%x), \
slice={[0:1024], [0:512]}
  %copy-start = (f32[1024,512]{1,0:T(8,128)S(1)}, f32[1024,512]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%y)
  %work.1 = f32[1024,128]{1,0:T(8,128)S(1)} negate(%z)
  %copy-done = f32[1024,512]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %work.2 = f32[1024,128]{1,0:T(8,128)S(1)} negate(%work.1)
  %slice-done = f32[1024,512]{1,0:T(8,128)S(1)} slice-done(%slice-start)
  %back-start = (f32[1024,512]{1,0:T(8,128)}, f32[1024,512]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%slice-done)
  %work.3 = f32[1024,128]{1,0:T(8,128)S(1)} negate(%work.2)
  ROOT %back-done = f32[1024,512]{1,0:T(8,128)} copy-done(%back-start)
}
"""


@pytest.mark.parametrize(
    ("lengths", "waiting"),
    [
        ((5_000, 4_000, 4_000), 0),  # the second copy is needed first, so the first has what is left, and 4,000 more
        ((3_000, 4_000, 4_000), 841),
        ((5_000, 1_000, 4_000), 1_682),
        ((9_000, 100, 3_841), 0),
        ((9_000, 100, 10), 3_831),
    ],
)
def test_copies_have_the_bandwidth_that_is_left_and_the_rest_is_waited_for(tmp_path, lengths, waiting):
    for number, count in enumerate(lengths, 1):
        write(tmp_path, f"work.{number}", count)
    found = schedules.of(AHEAD, tmp_path, CHIPS["v5e"])
    copy = math.ceil(1024 * 512 * 4 * 1.5e9 / 819e9)
    assert copy == 3_841
    assert found.by_bandwidth == 3 * copy
    assert found.waiting == waiting
    assert found.longest == sum(lengths) + waiting


def test_copies_on_the_chip_pass_no_memory_and_those_within_its_memory_pass_twice(tmp_path):
    write(tmp_path, "work.1", 1)
    on_chip = AHEAD.replace("%x = f32[1024,1024]{1,0:T(8,128)}", "%x = f32[1024,1024]{1,0:T(8,128)S(1)}")
    found = schedules.of(on_chip, tmp_path, CHIPS["v5e"])
    assert found.by_bandwidth == 2 * 3_841
    within = AHEAD.replace("%copy-done = f32[1024,512]{1,0:T(8,128)S(1)}", "%copy-done = f32[1024,512]{1,0:T(8,128)}")
    assert schedules.of(within, tmp_path, CHIPS["v5e"]).by_bandwidth == 4 * 3_841


@pytest.mark.parametrize("kind", ["slice", "dynamic-slice"])
def test_every_kind_of_copy_ahead_counts_once(tmp_path, kind):
    write(tmp_path, "work.1", 10_000)
    text = AHEAD.replace("slice-start(", f"{kind}-start(").replace(" slice-done(", f" {kind}-done(")
    found = schedules.of(text, tmp_path, CHIPS["v5e"])
    assert found.by_bandwidth == 3 * 3_841
    assert found.without_schedule == 0
    assert found.longest == 30_000  # all of the work is alike


@pytest.mark.parametrize(("length", "waiting"), [(800, 0), (700, 3_841 - 5 * 700)])
def test_a_copy_around_a_loop_has_the_bandwidth_that_all_its_turns_leave(tmp_path, length, waiting):
    on_chip = LOOP.replace("f32[1024]{0}", "f32[1024]{0:T(1024)S(1)}")
    around = on_chip.replace(
        "ENTRY %main (x: (s32[], f32[1024])) -> (s32[], f32[1024]) {\n",
        "ENTRY %main (x: (s32[], f32[1024]), y: f32[1024,512]) -> (s32[], f32[1024]) {\n"
        "  %y = f32[1024,512]{1,0:T(8,128)} parameter(1)\n"
        "  %copy-start = (f32[1024,512]{1,0:T(8,128)S(1)}, f32[1024,512]{1,0:T(8,128)}, u32[]) copy-start(%y)\n",
    )
    around = around.rstrip("}\n") + '"}}\n  %copy-done = f32[1024,512]{1,0:T(8,128)S(1)} copy-done(%copy-start)\n}\n'
    write(tmp_path, "doubled", length)
    write(tmp_path, "reversed", 0)
    found = schedules.of(around, tmp_path, CHIPS["v5e"])
    assert found.by_bandwidth == 3_841
    assert found.waiting == waiting
    assert found.longest == 5 * length + waiting


# Code of three turns around an inner loop of two, as the compiler prints it: an instruction of the outer loop is among
# those of the inner one, and empty ones have no mark.
LOOPS = """
LB: loop body
= control target key end

     0   :  { %s1 = inlined_call_operand.vmem [shape: f32[8], index: 0, kind: input, shape index: {}] /* operand 0 */ }
   0x1 LB: > { %s2 = sadd.s32 1, %s3 }
   0x2   : > { %4 = dma.hbm_to_vmem /* fetch
iteration_bounds: (99) */ }
   0x3 LB: >> { %v1 = vld [vmem:[%s2] sm:$0xff]  ;;  %p2_p1 = scmp.ge.s32.totalorder %s9, 2 /* loop exit test */ }
   0x4   : > { %s5 = sadd.s32 1, %s2 }
   0x5   : >> { %6 = sbr.rel (!%p2_p1) target = $region3 }
   0x6   :  {} /* End region 3 */
   0x7 PF: > { %p7_p0 = scmp.ge.s32.totalorder %s5, 3 /* loop exit test */ }
   0x8   :  { %8 = sbr.rel (!%p7_p0) target = $region5 }
   0x9   :  {}
   0xa   :  { %9 = vsyncpa [#allocation1], 1 }
"""


def test_loops_in_the_code_of_a_gather_run_as_often_as_it_says(tmp_path):
    gather = TEXT.replace('"iteration_bounds":["2","3","1"]', "").replace(
        '"window_config":{}', '"window_config":{"a":"1"}'
    )
    assert _bundles.instructions_of(LOOPS) == 2 + 3 * (5 + 2 * 4)
    write(tmp_path, "fusion.1", 11)
    (tmp_path / "1795-fusion.1-03-final_bundles.txt").write_text(LOOPS)
    assert schedules.of(gather, tmp_path, CHIPS["v5e"]).scheduled == 2 + 3 * (5 + 2 * 4)
    assert schedules.of(TEXT, tmp_path, CHIPS["v5e"]).scheduled == 6 * 11  # the program says how often


def test_a_folder_without_schedules(tmp_path):
    with pytest.raises(ValueError, match=r"libtpu: expected schedules in .*, from options before .*; received 'none'"):
        schedules.of(TEXT, tmp_path, CHIPS["v5e"])


def test_options_are_added_to_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--one=1")
    schedules.write_to(tmp_path)
    assert os.environ["LIBTPU_INIT_ARGS"].startswith(f"--one=1 --xla_jf_dump_to={tmp_path} ")
