"""The recipes of configs/wikitext103.py: each row of the papers' tables, by the numbers of their programs."""

import jax
import pytest

from configs import wikitext103
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.nn.auxiliary_losses import loss_weights


def config_of(argument):
    return config_lib.parse(wikitext103.get_config(argument))


# Millions of parameters, worked out from the widths: embedding and head 2 V D + V, and for each block attention 4 D^2,
# three LayerNorms 6 D (two in a dense block), and E experts 2 D^2 + 2 D with the gate's (D + 1) E; relative keys.
@pytest.mark.parametrize(
    ("argument", "millions"),
    [
        ("router=smoe_top1", 215.68),
        ("router=smoe_top2", 215.68),
        ("top=8", 215.68),
        ("router=similarity_smoe_top2", 215.68),
        ("router=symphony_smoe_top2", 215.68),
        ("router=glam", 204.47),
        ("experts=32", 239.57),
        ("router=xmoe", 215.66),
        ("router=smoe_dropout", 215.64),
        ("size=large", 388.14),
    ],
)
def test_parameters_of_each_row(argument, millions):
    model = models.from_config(config_of(argument).model)
    shapes = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    assert round(models.num_parameters(shapes["params"]) / 1e6, 2) == millions


def test_numbers_of_the_programs():
    medium, large, glam = config_of(None), config_of("size=large"), config_of("router=glam")
    model = medium.model
    assert (model.num_layers, model.hidden_size, model.mlp_size, model.num_heads) == (6, 352, 352, 8)
    assert (model.num_tokens, model.attention_span, model.moe.num_experts) == (512, 1024, 16)
    assert (model.moe_layers, glam.model.moe_layers) == ((0, 1, 2, 3, 4, 5), (1, 3, 5))
    assert (model.moe.capacity_factor, model.moe.capacity_factor_evaluation) == (None, None)
    assert (large.model.num_layers, large.model.num_tokens, large.model.attention_span) == (12, 1024, 2048)
    assert [config.train.batch_size for config in (medium, large, glam)] == [48, 24, 48]
    assert [config.train.steps for config in (medium, large, glam)] == [60_000, 60_000, 80_000]
    assert [config.optimizer.warmup_steps for config in (medium, large, glam)] == [4000, 5000, 4000]
    assert [config.optimizer.learning_rate for config in (medium, large, glam)] == [7e-4, 7e-4, 7e-5]
    # 60 "epochs" of 1000 batches of 48 x 512 tokens
    assert medium.train.steps * medium.train.batch_size * model.num_tokens == 1_474_560_000


def test_balance_losses_have_no_effect_unless_the_argument_says_so():
    for router in ("glam", "xmoe"):
        assert set(loss_weights(config_of(f"router={router}").model.router).values()) == {0.0}
    assert loss_weights(config_of("router=xmoe@switch.weight=0.02").model.router) == {"switch": 0.02}
    assert config_of("router=smoe_dropout").model.router.options["frozen"]["k_start"] is None
    assert config_of("router=smoe_dropout@frozen.k_start=1").model.router.options["frozen"]["k_start"] == 1


@pytest.mark.parametrize("temperature", ["0.1", "1", "2", "sqrt_dim"])
def test_rows_of_the_ablation(temperature):
    options = config_of(f"router=similarity_smoe_top2@similarity.temperature={temperature}").model.router.options
    assert str(options["similarity"]["temperature"]) in (temperature, f"{temperature}.0")
