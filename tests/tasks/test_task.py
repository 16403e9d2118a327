"""Tasks: what training and evaluation ask of them, and a task of another kind than those of the library."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import checks, tasks
from vmoe_inform import config as config_lib
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.nn import models
from vmoe_inform.routing.steps import Duration
from vmoe_inform.runs.state import create
from vmoe_inform.tasks.classification import Classification
from vmoe_inform.tasks.task import TASKS
from vmoe_inform.training.optimizer import make_optimizer, make_schedule
from vmoe_inform.training.step import make_train_step


def _config(**overrides) -> config_lib.Config:
    return config_lib.parse(tiny.config_dict(**overrides))


KEYS = tuple(jax.random.split(jax.random.key(0), 3))
BATCH = {"image": jnp.full((4, 32, 32, 3), 255, jnp.uint8), "label": jnp.array([0, 1, 2, 9])}


def test_the_config_names_the_task():
    assert type(tasks.from_config(_config())) is Classification
    with pytest.raises(
        checks.InputError,
        match=r"task: expected one of classification, language_modeling, .*; received 'clasification' .did",
    ):
        tasks.from_config(_config(task="clasification"))


def test_a_headline_in_words_is_of_its_task():
    class Another(Classification):
        headline_name = "text/perplexity"
        headline_in_words = tasks.Task.headline_in_words

    task = tasks.from_config(_config())
    assert task.headline_in_words(0.92307) == "clean top-1 92.31%"
    assert Another(_config()).headline_in_words(12.34567) == "text/perplexity 12.35"


def test_a_task_refuses_a_model_of_other_inputs():
    class OfTokens(Classification):
        inputs = "tokens"

    with pytest.raises(checks.InputError, match=r"model.inputs: expected 'tokens' with task = .*; received 'images'"):
        OfTokens(_config())


def test_evaluation_changes_nothing_at_random():
    task = tasks.from_config(_config(data__random_shift_px=8, data__random_erasing=1.0, train__mixup_alpha=1.0))
    prepare = jax.jit(task.prepare)
    whole = prepare(None, BATCH)
    np.testing.assert_allclose(whole["inputs"], 1.0, rtol=1e-6)  # (255 / 255 - 0.5) / 0.5
    np.testing.assert_array_equal(whole["label"], BATCH["label"])
    np.testing.assert_array_equal(prepare(None, {"image": BATCH["image"]})["inputs"], whole["inputs"])
    assert not np.array_equal(prepare(KEYS, BATCH)["inputs"], whole["inputs"])


def test_loss_and_metrics_of_training():
    """Smoothing by 0.5 over 10 classes: 0.55 for the own class, 0.05 for each other one; the uniform prediction costs
    log 10 whatever the targets, and its largest logit is the first class."""
    task = tasks.from_config(_config(train__label_smoothing=0.5, data__random_shift_px=0))
    prepared = task.prepare(KEYS, BATCH)
    np.testing.assert_allclose(prepared["targets"][1], [0.05, 0.55] + [0.05] * 8, rtol=1e-6)
    loss, metrics = task.loss(jnp.zeros((4, 10)), {}, prepared)
    np.testing.assert_allclose(loss, np.log(10), rtol=1e-6)
    assert metrics["cross_entropy"] == loss
    assert metrics["accuracy"] == 0.25


def test_batches_are_as_announced_and_the_data_complete_the_config():
    task = tasks.from_config(_config()).opened()
    assert task.config.data.class_names == tuple(map(str, range(10)))
    assert task.num_records == 1433
    with_data = task.training_batches(SkippedRecords(0.0), 0, 1)
    batch = next(with_data)
    with_data.close()
    chex.assert_trees_all_equal_shapes_and_dtypes(batch, task.batch_shapes(16))
    for batch in task.evaluation_batches(task.test_source, SkippedRecords(0.0), 0, 1):
        assert {"index", "mask", task.input_field, *task.facts} <= batch.keys()
    with pytest.raises(checks.InputError, match=r"model.num_classes: expected the 10 classes of the data; received 7"):
        tasks.from_config(_config(model__num_classes=7)).opened()


def test_the_headline():
    task = tasks.from_config(_config())
    logits = np.eye(10)[[0, 1, 2, 2]]
    assert task.headline(logits, {"label": np.array([0, 1, 2, 3])}) == tasks.Headline("clean/top1", 0.75)
    with pytest.raises(checks.InputError, match="logits: expected finite numbers"):
        task.headline(np.where(logits == 1, np.nan, logits), {"label": np.zeros(4, int)})


@pytest.fixture
def brightness():
    """A task of another kind: the brightness of the image by regression, without labels."""

    @TASKS.register("brightness")
    class Brightness(Classification):
        facts = ()
        headline_name = "clean/error"

        def batch_shapes(self, batch_size):
            return {"image": super().batch_shapes(batch_size)["image"]}

        def prepare(self, keys, batch):
            pixels = batch["image"] / 255.0
            return {"inputs": pixels, "brightness": jnp.mean(pixels, axis=(1, 2, 3))}

        def loss(self, outputs, aux, batch):
            error = jnp.mean((outputs[:, 0] - batch["brightness"]) ** 2)
            return error, {"squared_error": error}

    yield Brightness
    del TASKS._entries["brightness"]


def test_parts_of_a_batch_count_by_their_examples(brightness):
    """Filler rows, of which some parts have more than others: gradients and metrics are those of the whole batch."""

    class Masked(brightness):
        def prepare(self, keys, batch):
            return {**super().prepare(keys, batch), "mask": batch["mask"]}

        def loss(self, outputs, aux, batch):
            errors = (outputs[:, 0] - batch["brightness"]) ** 2
            error = jnp.sum(jnp.where(batch["mask"], errors, 0.0)) / jnp.maximum(jnp.sum(batch["mask"]), 1)
            return error, {"squared_error": error}

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    mask = np.array([1, 1, 1, 0, 1, 0, 1, 0], bool)  # of 4 parts one is filler
    found = []
    for parts in (1, 2, 4):
        changes = {"train__gradient_accumulation_steps": parts, "model__moe__group_size_sequences": 1, **tiny.ONE_BLOCK}
        changes |= {"model__router__noise_std": 0.0, "model__router__losses": ("importance",)}
        config = _config(task="brightness", **changes)
        model, optimizer = models.from_config(config.model), make_optimizer(config.optimizer, 20)
        schedule = make_schedule(config.optimizer, 20)
        step = jax.jit(make_train_step(model, Masked(config), optimizer, schedule, config, Duration(20)))
        _, metrics = step(create(model, optimizer, seed=jnp.uint32(0), ema=False), {"image": images, "mask": mask})
        found.append({name: float(metrics[name]) for name in ("loss", "squared_error", "gradient_norm")})
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0] == pytest.approx(found[2], rel=1e-4)


def test_a_step_trains_any_task(brightness):
    config = _config(task="brightness", optimizer__warmup_steps=0, optimizer__learning_rate=0.05)
    task = tasks.from_config(config)
    assert isinstance(task, brightness)
    model, optimizer = models.from_config(config.model), make_optimizer(config.optimizer, 20)
    step = jax.jit(make_train_step(model, task, optimizer, make_schedule(config.optimizer, 20), config, Duration(20)))
    state = create(model, optimizer, seed=jnp.uint32(0), ema=False)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    errors = []
    for _ in range(5):
        state, metrics = step(state, {"image": images})
        errors.append(float(metrics["squared_error"]))
    assert "accuracy" not in metrics
    assert errors[-1] < 0.1 * errors[0]
