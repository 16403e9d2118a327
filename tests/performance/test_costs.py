"""Programs whose costs can be worked out by hand: written as text, and compiled."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vmoe_inform.performance import costs, topology
from vmoe_inform.performance.costs import hlo
from vmoe_inform.sharding.chips import CHIPS

# A loop that the compiler says nothing about: the counter goes from 2 in steps of 3 while it is below 12: 2, 5, 8, 11.
LOOP = """HloModule loop

%fused (a.1: f32[4,8]) -> f32[4,8] {
  %a.1 = f32[4,8]{1,0} parameter(0)
  ROOT %inner = f32[4,8]{1,0} negate(%a.1), backend_config={"estimated_cycles":"1000000"}
}

%body (state.1: (s32[], f32[4,8], s32[])) -> (s32[], f32[4,8], s32[]) {
  %state.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)S(1)}, /*index=2*/s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %step.1 = s32[] get-tuple-element(%state.1), index=2
  %next = s32[] add(%i.1, %step.1)
  %x.1 = f32[4,8]{1,0} get-tuple-element(%state.1), index=1
  %y = f32[4,8]{1,0} fusion(%x.1), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"7"}
  %all-to-all.1 = f32[4,8]{1,0} all-to-all(%y), replica_groups={{0,1}}, dimensions={0}
  ROOT %state.2 = (s32[], f32[4,8], s32[]) tuple(%next, %all-to-all.1, %step.1)
}

%condition (state.3: (s32[], f32[4,8], s32[])) -> pred[] {
  %end = s32[] constant(12)
  %state.3 = (s32[], f32[4,8]{1,0}, s32[]) parameter(0)
  %i.2 = s32[] get-tuple-element(%state.3), index=0
  ROOT %less = pred[] compare(%i.2, %end), direction=LT
}

ENTRY %main (x: f32[4,8], n: s32[]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %begin = s32[] constant(2)
  %three = s32[] constant(3)
  %copy = s32[] copy(%begin)
  %start = (s32[], f32[4,8], s32[]) tuple(%copy, %x, %three)
  %while.1 = (s32[], f32[4,8], s32[]) while(%start), condition=%condition, body=%body
  ROOT %result = f32[4,8]{1,0} get-tuple-element(%while.1), index=1
}
"""


def test_a_loop_counts_as_often_as_it_runs():
    counted = costs.count(LOOP, CHIPS["v5e"])
    assert counted.cycles == 4 * 7  # not what is stated inside the fusion
    assert counted.collectives == {"all-to-all": (4, 4 * 4 * 8 * 4)}
    # negate and the counter's add: the comparison is in the condition, which is not counted
    assert (counted.once.flops, counted.loops.flops) == (4 * 8 + 1, 3 * (4 * 8 + 1))
    assert counted.unknown_loops == 0


def test_a_loop_of_unknown_length_counts_once_and_is_reported():
    counted = costs.count(LOOP.replace("copy(%begin)", "copy(%n)"), CHIPS["v5e"])
    assert (counted.cycles, counted.unknown_loops) == (7, 1)
    assert counted.collectives == {"all-to-all": (1, 4 * 8 * 4)}


def test_what_the_compiler_says_of_a_loop_goes_first():
    stated = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}')
    assert costs.count(stated).cycles == 35


def test_a_loop_that_never_runs_costs_nothing():
    counted = costs.count(LOOP.replace("constant(2)", "constant(12)"))
    assert (counted.cycles, counted.collectives) == (0, {})
    assert counted.once.flops + counted.loops.flops == 0


def test_loops_in_loops_multiply_and_know_what_the_outer_one_passes_on():
    """The inner loop is LOOP's, whose step comes from the outer loop's tuple; the outer one runs 3 times."""
    inner = LOOP.partition("ENTRY")[0]
    text = (
        inner
        + """%outer_body (state.4: (s32[], f32[4,8], s32[])) -> (s32[], f32[4,8], s32[]) {
  %state.4 = (s32[], f32[4,8]{1,0}, s32[]) parameter(0)
  %j = s32[] get-tuple-element(%state.4), index=0
  %one = s32[] constant(1)
  %j.1 = s32[] add(%j, %one)
  %x.2 = f32[4,8]{1,0} get-tuple-element(%state.4), index=1
  %step.2 = s32[] get-tuple-element(%state.4), index=2
  %begin = s32[] constant(2)
  %start = (s32[], f32[4,8], s32[]) tuple(%begin, %x.2, %step.2)
  %while.1 = (s32[], f32[4,8], s32[]) while(%start), condition=%condition, body=%body
  %y.1 = f32[4,8]{1,0} get-tuple-element(%while.1), index=1
  ROOT %state.5 = (s32[], f32[4,8], s32[]) tuple(%j.1, %y.1, %step.2)
}

%outer_condition (state.6: (s32[], f32[4,8], s32[])) -> pred[] {
  %state.6 = (s32[], f32[4,8]{1,0}, s32[]) parameter(0)
  %j.2 = s32[] get-tuple-element(%state.6), index=0
  %end.1 = s32[] constant(3)
  ROOT %less.1 = pred[] compare(%end.1, %j.2), direction=GT
}

ENTRY %main (x: f32[4,8]) -> (s32[], f32[4,8], s32[]) {
  %x = f32[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %three = s32[] constant(3)
  %start.1 = (s32[], f32[4,8], s32[]) tuple(%zero, %x, %three)
  ROOT %while.2 = (s32[], f32[4,8], s32[]) while(%start.1), condition=%outer_condition, body=%outer_body
}
"""
    )
    counted = costs.count(text)
    assert (counted.cycles, counted.unknown_loops) == (3 * 4 * 7, 0)
    assert counted.collectives["all-to-all"][0] == 12
    # once: 33 of the inner body, and the outer counter; in all 3 (4 * 33 + 1)
    assert counted.once.flops == 34
    assert counted.once.flops + counted.loops.flops == 3 * (4 * 33 + 1)


COLLECTIVES = """HloModule collectives

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%wrapped (p: f32[16]) -> f32[4] {
  %p = f32[16]{0} parameter(0)
  ROOT %scattered = f32[4]{0} reduce-scatter(%p), dimensions={0}, to_apply=%sum
}

%sum_and_slice (q: bf16[64]) -> bf16[16] {
  %q = bf16[64]{0} parameter(0)
  %all-reduce.2 = bf16[64]{0} all-reduce(%q), to_apply=%sum
  %id = u32[] partition-id()
  ROOT %part = bf16[16]{0} dynamic-slice(%all-reduce.2, %id), dynamic_slice_sizes={16}
}

%chain_start (r: s32[2]) -> (s32[2], s32[8]) {
  %r = s32[2]{0} parameter(0)
  %all-gather.2 = s32[8]{0} all-gather(%r), dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %started = (s32[2]{0}, s32[8]{0}) custom-call(%all-gather.2), custom_call_target="AsyncCollectiveStart"
}

%chain_step (r.1: s32[2]) -> s32[8] {
  %r.1 = s32[2]{0} parameter(0)
  ROOT %all-gather.3 = s32[8]{0} all-gather(%r.1), dimensions={0}, frontend_attributes={chain_id="0"}
}

ENTRY %main (x: f32[8,128], y: f32[16], z: bf16[64], w: s32[2]) -> f32[8,128] {
  %x = f32[8,128]{1,0} parameter(0)
  %y = f32[16]{0} parameter(1)
  %z = bf16[64]{0} parameter(2)
  %w = s32[2]{0} parameter(3)
  %permute = (f32[8,128]{1,0}, f32[8,128]{1,0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1}}
  %permuted = f32[8,128]{1,0} collective-permute-done(%permute)
  %gather = (f32[16]{0}, f32[64]{0}) all-gather-start(%y), dimensions={0}
  %gathered = f32[64]{0} all-gather-done(%gather)
  %reduce = (f32[16]{0}, f32[8,128]{1,0}) all-reduce-start(%y, %x), to_apply=%sum
  %reduced = (f32[16]{0}, f32[8,128]{1,0}) all-reduce-done(%reduce)
  %scatter = ((f32[16]{0}), f32[4]{0}) async-start(%y), calls=%wrapped
  %scattered.1 = f32[4]{0} async-done(%scatter)
  %part.1 = bf16[16]{0} fusion(%z), kind=kCustom, calls=%sum_and_slice
  %chain = (s32[2]{0}, s32[8]{0}) fusion(%w), kind=kCustom, calls=%chain_start
  %chained = s32[8]{0} fusion(%w), kind=kCustom, calls=%chain_step
  ROOT %copy = f32[8,128]{1,0} copy(%permuted), backend_config={"estimated_cycles":"3"}
}
"""


def test_every_collective_counts_once_in_each_of_its_forms():
    counted = costs.count(COLLECTIVES, CHIPS["v5e"])
    assert counted.collectives == {
        "all-gather": (2, 64 * 4 + 8 * 4),  # asynchronous, and carried on in a fusion
        "all-reduce": (1, 16 * 4 + 8 * 128 * 4),
        "collective-permute": (1, 8 * 128 * 4),
        "reduce-scatter": (2, 16 * 4 + 64 * 2),  # asynchronous, and a sum of which a part is kept
    }
    assert counted.cycles == 3
    assert counted.without_cycles == {}


# As the compiler for TPUs writes the program of one slice of several; the second send is that of a host callback.
ACROSS = """HloModule across

ENTRY %main (x: f32[8,128], y: bf16[4,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0} parameter(0)
  %y = bf16[4,128]{1,0} parameter(1)
  %token = token[] after-all()
  %send = (f32[8,128]{1,0}, u32[], token[]) send(%x, %token), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[8,128]{1,0}, u32[], token[]) recv(%token), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}
  %send.1 = (bf16[4,128]{1,0}, u32[], token[]) send(%y, %token), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="tf_rendezvous"}
  %sent = token[] send-done(%send), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  ROOT %done = (f32[8,128]{1,0}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
}
"""  # noqa: E501


def test_what_a_slice_sends_to_others_counts_once_and_is_no_work_of_the_device():
    counted = costs.count(ACROSS, CHIPS["v5e"])
    assert counted.across_slices == {"all-reduce": (1, 8 * 128 * 4)}
    assert counted.collectives == {}
    assert set(counted.without_cycles) == {"send"}  # that of the callback
    assert counted.repeated(3).across_slices == {"all-reduce": (3, 3 * 8 * 128 * 4)}


def test_a_program_of_all_slices_is_refused():
    """Its collectives would name devices of other slices, and nothing would be sent."""
    devices = topology.devices_of("v5e:2x2", 2)
    costs._check_is_of_one_slice("HloModule one, num_partitions=4", devices)
    with pytest.raises(ValueError, match=r"^libtpu: expected the program of one slice of 4 devices; received 8$"):
        costs._check_is_of_one_slice("HloModule all, num_partitions=8", devices)


KERNELS = """HloModule kernels

%pick (table: bf16[64,128], rows: s32[16]) -> bf16[16,128] {
  %table = bf16[64,128]{1,0} parameter(0)
  %rows = s32[16]{0} parameter(1)
  ROOT %gather = bf16[16,128]{1,0} gather(%table, %rows), offset_dims={1}, slice_sizes={1,128}
}

%left (a.1: bf16[64,128]) -> bf16[64,128] {
  ROOT %a.1 = bf16[64,128]{1,0} parameter(0)
}

%right (a.2: bf16[64,128]) -> bf16[64,128] {
  %a.2 = bf16[64,128]{1,0} parameter(0)
  ROOT %twice = bf16[64,128]{1,0} copy(%a.2), backend_config={"estimated_cycles":"500"}
}

ENTRY %main (a: bf16[64,128], n: s32[16], which: s32[]) -> bf16[64,128] {
  %a = bf16[64,128]{1,0} parameter(0)
  %n = s32[16]{0} parameter(1)
  %which = s32[] parameter(2)
  %kernel = bf16[64,128]{1,0} custom-call(%a, %n), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"body":"TUw(=","cost_estimate":{"flops":"262145","transcendentals":"0","bytes_accessed":"64"}}}
  %rows.1 = bf16[16,128]{1,0} fusion(%kernel, %n), kind=kCustom, calls=%pick
  %room = bf16[64,128]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %chosen = bf16[64,128]{1,0} conditional(%which, %kernel, %kernel), branch_computations={%left, %right}
}
"""  # noqa: E501


def test_kernels_cost_their_operations_at_the_peak_and_a_choice_its_dearest_branch():
    counted = costs.count(KERNELS, CHIPS["v5e"])
    # 197e12 / 1.5e9 = 131,333 operations a cycle: 262,145 take 1.996 cycles, so 2
    assert counted.cycles == 2 + 500
    # the rows that are picked, read and written, and the row numbers
    assert counted.without_cycles == {"gather": (1, 16 * 128 * 2 * 2 + 16 * 4)}
    assert costs.count(KERNELS).cycles == 500  # without a chip there is no peak


@pytest.mark.parametrize(
    ("attributes", "shapes", "expected"),
    [
        # Dense 3 x 3 over 5 x 5, no padding: 9 outputs, each of 9 positions, 2 input and 4 output features, 1 image.
        ("window={size=3x3}", ("1,5,5,2", "3,3,2,4", "1,3,3,4"), 2 * 9 * 9 * 2 * 4),
        # Padding by one, one axis: outputs 0 and 4 have two positions, 1 to 3 have three.
        ("window={size=3x1 pad=1_1x0_0}", ("1,5,1,1", "3,1,1,1", "1,5,1,1"), 2 * (2 + 3 * 3 + 2)),
        # Every second output, and an input with a zero between any two: positions 0, 2, 4 exist.
        ("window={size=1x1 stride=2x1 lhs_dilate=2x1}", ("1,3,1,1", "1,1,1,1", "1,3,1,1"), 2 * 3),
        ("window={size=2x1 lhs_dilate=2x1}", ("1,3,1,1", "2,1,1,1", "1,4,1,1"), 2 * 4),
    ],
)
def test_operations_of_convolutions(attributes, shapes, expected):
    left, right, result = (f"f32[{shape}]{{3,2,1,0}}" for shape in shapes)
    text = f"""HloModule convolution

ENTRY %main (a: f32[1], b: f32[1]) -> f32[1] {{
  %a = {left} parameter(0)
  %b = {right} parameter(1)
  ROOT %c = {result} convolution(%a, %b), {attributes}, dim_labels=b01f_01io->b01f
}}
"""
    assert costs.count(text).once.flops == expected


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="expected an ENTRY computation; received 'nothing'"):
        hlo.parse("nothing")


def test_shapes():
    shapes = hlo.shapes_of("(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, pred[7]{0}, /*index=2*/s4[3]{0}, f32[], token[])")
    assert [shape.num_bytes for shape in shapes] == [12, 7, 2, 4]  # a token has no array; 3 x 4 bits are 2 bytes


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


def test_a_compiled_scan_costs_what_the_unrolled_loop_costs():
    weights, x = jnp.ones((10, 64, 64)), jnp.ones((64, 64))

    def scanned(x, weights):
        return jax.lax.scan(lambda carry, weight: (jnp.tanh(carry @ weight), None), x, weights)[0]

    def unrolled(x, weights):
        for weight in weights:
            x = jnp.tanh(x @ weight)
        return x

    loop, straight = costs.of(compiled(scanned, x, weights)), costs.of(compiled(unrolled, x, weights))
    assert straight.flops == pytest.approx(10 * 2 * 64**3, rel=0.01)
    assert loop.flops == pytest.approx(straight.flops, rel=0.01)  # the compiler alone says a tenth
    assert loop.bytes_accessed > 10 * 2 * x.nbytes
    assert (loop.unknown_loops, loop.estimated_cycles, loop.without_cycles) == (0, None, {})
    assert loop.argument_bytes == x.nbytes + weights.nbytes
    assert loop.output_bytes == x.nbytes
    assert loop.peak_bytes >= loop.argument_bytes + loop.output_bytes + loop.temp_bytes


def test_operations_agree_with_the_compiler_where_there_is_no_loop():
    def function(x, kernel, weights):
        x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.einsum("bhwf,fd->bd", x, weights)

    program = compiled(jax.grad(lambda *a: jnp.sum(function(*a) ** 2), (0, 1, 2)), *map(jnp.ones, SIZES))
    counted = costs.count(program.as_text())
    stated = program.cost_analysis()["flops"]
    assert counted.loops == costs.Work()
    assert counted.once.flops == pytest.approx(stated, rel=0.02)


SIZES = ((2, 16, 16, 3), (3, 3, 3, 8), (8, 32))


def test_collectives_of_a_compiled_program_in_a_loop():
    mesh = jax.make_mesh((8,), ("x",), (AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("x"))

    def function(x):
        def body(x, _):
            return jax.lax.all_to_all(jax.lax.psum(x, "x") * 0.5, "x", 1, 1, tiled=True), None

        return jax.lax.scan(body, x, length=5)[0]

    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=PartitionSpec("x"), out_specs=PartitionSpec("x"), check_vma=False
    )
    found = costs.of(compiled(mapped, jax.ShapeDtypeStruct((8, 16, 4), jnp.float32, sharding=sharding)))
    assert {name: often for name, (often, _) in found.collectives.items()} == {"all-reduce": 5, "all-to-all": 5}
    assert found.collectives["all-reduce"][1] == 5 * 16 * 4 * 4
