import jax
import jax.numpy as jnp
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.sharding import mesh as mesh_lib
from vmoe_inform.sharding import rules
from vmoe_inform.training import program as program_lib


@pytest.mark.parametrize("router", tiny.SYSTEMS)
def test_every_array_of_the_state_has_a_rule_and_experts_are_sharded(router):
    config = tiny.config_dict(
        router, mesh__expert=4, mesh__fsdp=2, model__classifier="map", model__representation_size=8,
        model__moe__shared_experts=1, train__ema_decay=0.9, model__router__options__similarity__learned_weight=True,
    )  # fmt: skip
    shapes = program_lib.build(config_lib.parse(config), 20).state_shapes
    specs = {rules.path_name(path): leaf.sharding.spec for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    sharded = {name for name, spec in specs.items() if spec and spec[0] == "expert"}
    assert sharded == {name for name in specs if "/experts/" in name}
    # Kernels and biases of two layers in each MoE layer: parameters, two moments, moving average.
    assert len(sharded) == 4 * 4 * len(config_lib.parse_model(config.model).moe_layers)
    # What is not cut up along fsdp: vectors, embeddings, routers.
    whole = {name for name, spec in specs.items() if "fsdp" not in spec and name.endswith("/kernel")}
    assert all("/router/" in name for name in whole)


def test_an_unknown_path_or_an_uneven_axis_is_an_error():
    mesh = mesh_lib.make_mesh(2, 4)
    with pytest.raises(ValueError, match=r"sharding rules: expected a rule .*; received 'params/block_0/colour'"):
        rules.tree_shardings({"params": {"block_0": {"colour": jnp.zeros(3)}}}, mesh)
    tree = {"params": {"block_1": {"moe": {"experts": {"hidden": {"bias": jnp.zeros((6, 2))}}}}}}
    with pytest.raises(ValueError, match="hidden/bias: expected a size divisible by the 4 devices along 'expert'"):
        rules.tree_shardings(tree, mesh)
    with pytest.raises(ValueError, match="mesh: expected replica x fsdp x expert = 8 devices; received '3 x 1 x 2'"):
        mesh_lib.make_mesh(3, 2)


def test_constrain_without_a_mesh_changes_nothing():
    array = jnp.ones((2, 2))
    assert mesh_lib.constrain(array, "expert") is array


def test_what_is_cut_up_is_gathered_for_the_layers():
    mesh = mesh_lib.make_mesh(2, 2, fsdp=2)
    params = {"block_0": {"mlp": {"hidden": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}}}
    assert rules.gathered(params) is params  # no mesh, nothing to gather
    with jax.set_mesh(mesh):
        cut = jax.device_put(params, rules.tree_shardings({"params": params}, mesh)["params"])
        whole = jax.jit(rules.gathered)(cut)
    kernels = [tree["block_0"]["mlp"]["hidden"]["kernel"] for tree in (cut, whole)]
    assert [kernel.addressable_shards[0].data.shape for kernel in kernels] == [(2, 2), (4, 2)]
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="received 'params/colour'"):
        rules.gathered({"colour": jnp.zeros(3)})
