"""Auxiliary losses, which were fields of their own and are steps: older configs mean the same."""

import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.config import files, identity, migrations
from vmoe_inform.nn.auxiliary_losses import loss_weights

NONE = dict.fromkeys(("importance", "load", "switch", "gshard", "z", "balance", "distillation"), 0.0)


def older(router: str, losses: dict[str, float]) -> config_lib.Config:
    """A config as it is read from a config.json in which each loss is a field."""
    tree = config_lib.to_json(config_lib.parse(tiny.config_dict(router)))
    settings = tree["model"]["router"]
    for name in settings.pop("losses"):
        del settings["options"][name]
    settings["options"].get("distilled", {}).pop("distillation_weight", None)
    settings["losses"] = losses
    return config_lib.parse(migrations.migrate(tree))


# The hashes are those that the version with a field for each loss worked out: finished evaluations are known by them.
@pytest.mark.parametrize(
    ("router", "losses", "weights", "config_hash"),
    [
        ("vmoe", {"importance": 0.005, "load": 0.005}, {"importance": 0.005, "load": 0.005}, "08963b946d97d8f6"),
        ("vmoe", {**NONE, "load": 0.005}, {"load": 0.005}, "15a8c7587be1f1cc"),
        ("base", NONE, {}, "68dfd0621fd68dc2"),
        ("symphony_xmoe", {**NONE, "switch": 0.01}, {"switch": 0.01}, "59e3f141ec5fb868"),
        (
            "stablemoe",
            {**NONE, "balance": 0.3, "distillation": 0.3},
            {"balance": 0.3, "distillation": 0.3},
            "c431a308418edd6f",
        ),
        (
            "vmoe",
            {"z": 0.001, "switch": 0.02, "balance": 0.1},
            {"importance": 0.005, "switch": 0.02, "z": 0.001, "balance": 0.1, "load": 0.005},
            "259a5687330a2891",
        ),
    ],
)
def test_an_older_config_has_the_same_losses_and_the_same_hash(router, losses, weights, config_hash):
    config = older(router, losses)
    assert list(loss_weights(config.model.router).items()) == list(weights.items())  # added up in this order
    assert identity.config_hash(config) == config_hash


def test_a_weight_is_part_of_the_hash_and_the_order_is_not():
    def hash_of(*losses, **overrides):
        return identity.config_hash(config_lib.parse(tiny.config_dict(model__router__losses=losses, **overrides)))

    hashes = [hash_of("load", "importance"), hash_of("load"), hash_of("load", "importance", "z")]
    hashes.append(hash_of("load", "importance", model__router__options__load__weight=0.1))
    assert hashes[0] == hash_of("importance", "load")
    assert len(set(hashes)) == len(hashes)


def test_a_damaged_group_of_losses_is_said():
    with pytest.raises(ValueError, match=r"model.router.losses: expected the keys importance, .*; received \['zz'\]"):
        older("vmoe", {"zz": 1.0})
    with pytest.raises(ValueError, match=r"options.z.weight: expected float .*; received 'much'"):
        older("vmoe", {"z": "much"})


def test_the_command_line_says_where_the_weight_of_a_loss_is_now():
    message = r"model.router.losses.z: expected .*model.router.options.z.weight of a loss that .*losses names"
    with pytest.raises(ValueError, match=message):
        files.take_fields(["--config.model.router.losses.z=0.1"])


@pytest.mark.parametrize("router", ["switch_vmoe@switch.over=batch", "remoe@positive_experts.over=batch"])
def test_loads_of_the_whole_batch_are_refused_where_it_comes_in_parts(router):
    assert config_lib.parse(tiny.config_dict(router))
    step = router.partition("@")[2].partition(".")[0]
    message = rf"train.gradient_accumulation_steps: expected 1 with the losses of '{step}' over the .*; received 2"
    with pytest.raises(ValueError, match=message):
        config_lib.parse(tiny.config_dict(router, train__gradient_accumulation_steps=2))


def test_a_loss_of_the_kernel_is_refused_where_none_is_learned():
    assert loss_weights(config_lib.parse(tiny.config_dict("simbal_smoe_top2")).model.router) == {"simbal": 0.1}
    with pytest.raises(ValueError, match=r"router.losses: expected no 'simbal' with .*score = 'cosine': no kernel; .*"):
        config_lib.parse(tiny.config_dict("simbal_xmoe"))
