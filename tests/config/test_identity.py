"""Which settings make a run the same run."""

import dataclasses
from typing import Annotated

import pytest

from vmoe_inform import checks
from vmoe_inform.config import Config, ImageConfig, MeshConfig, TrainConfig, identity, migrations, parse, parse_model
from vmoe_inform.config.identity import Change, Effect
from vmoe_inform.config.migrations import Added, Removed, Renamed, migrate


def _with(config: Config, field: str, value) -> Config:
    """With one field replaced, unchecked."""
    *groups, name = field.split(".")
    path = [config]
    for group in groups:
        path.append(getattr(path[-1], group))
    changed = dataclasses.replace(path.pop(), **{name: value})
    for group in reversed(groups):
        changed = dataclasses.replace(path.pop(), **{group: changed})
    return changed


def test_every_setting_has_an_effect():
    """A new field of Config itself has to state one; one of a group has the group's unless it states another."""
    settings = identity.settings_of(parse({"train": {"steps": 1}}))
    assert len(settings) > 100
    assert {setting.effect for setting in settings.values()} == set(Effect)

    @dataclasses.dataclass(frozen=True)
    class Forgotten:
        seed: int = 0

    with pytest.raises(TypeError, match="seed: neither it nor its group has an effect"):
        identity.settings_of(Forgotten())


@pytest.mark.parametrize(
    ("field", "value", "effect"),
    [
        ("seed", 1, Effect.TRAINING),
        ("model.hidden_size", 64, Effect.TRAINING),
        ("model.dtype", "bfloat16", Effect.TRAINING),
        ("model.moe.capacity_factor", 2.0, Effect.TRAINING),
        ("model.router.noise_std", 0.5, Effect.TRAINING),
        ("model.router.select", "expert_choice", Effect.TRAINING),
        ("data.source", "folder", Effect.TRAINING),
        ("data.random_flip", True, Effect.TRAINING),
        ("train.batch_size", 64, Effect.TRAINING),
        ("train.initial_checkpoint", "other", Effect.TRAINING),
        ("optimizer.learning_rate", 0.1, Effect.TRAINING),
        ("train.steps", 9, Effect.RESULTS),
        ("data.evaluation_crop", 0.875, Effect.RESULTS),
        ("data.evaluation_resize", "stretch", Effect.RESULTS),
        ("data.evaluation_interpolation", "bicubic", Effect.RESULTS),
        ("evaluation.attack.epsilon", 2.0, Effect.RESULTS),
        ("evaluation.ece_bins", 10, Effect.RESULTS),
        ("model.moe.capacity_factor_evaluation", 2.0, Effect.RESULTS),
        ("model.moe.dispatch", "einsum", Effect.MACHINE),
        ("model.remat", "full", Effect.MACHINE),
        ("model.attention", "xla", Effect.MACHINE),
        ("model.attention_block_size", 4, Effect.MACHINE),
        ("data.directory", "/data", Effect.MACHINE),
        ("data.num_workers", 2, Effect.MACHINE),
        ("train.watchdog_seconds", None, Effect.MACHINE),
        ("checkpoint.keep", 1, Effect.MACHINE),
        ("evaluation.batch_size", 8, Effect.MACHINE),
        ("mesh.expert", 2, Effect.MACHINE),
        ("profile", 3, Effect.MACHINE),
    ],
)
def test_a_setting_changes_the_hash_if_it_changes_scores(field, value, effect):
    before = parse({"train": {"steps": 1}})
    after = _with(before, field, value)
    (change,) = identity.changes(before, after)
    assert (change.field, change.effect) == (field, effect)
    assert str(change).startswith(f"{field}: ")
    assert str(change).endswith(f" -> {value!r}")
    assert (identity.config_hash(before) == identity.config_hash(after)) == (effect is Effect.MACHINE)


def test_an_option_of_the_router_decides_the_run():
    before, after = (
        parse({"train": {"steps": 1}, "model": {"router": {"options": {"linear": {"bias": bias}}}}})
        for bias in (False, True)
    )
    expected = [Change("model.router.options.linear.bias", False, True, Effect.TRAINING)]
    assert identity.changes(before, after) == expected
    assert identity.config_hash(before) != identity.config_hash(after)


def test_a_setting_that_is_added_leaves_the_hash_of_older_runs():
    @dataclasses.dataclass(frozen=True)
    class LaterTrainConfig(TrainConfig):
        momentum_of_tomorrow: float = 0.5

    @dataclasses.dataclass(frozen=True)
    class LaterConfig(ImageConfig):
        train: Annotated[LaterTrainConfig, Effect.TRAINING] = LaterTrainConfig()

    before = identity.config_hash(ImageConfig(train=TrainConfig(steps=7)))
    assert identity.config_hash(LaterConfig(train=LaterTrainConfig(steps=7))) == before
    assert identity.config_hash(LaterConfig(train=LaterTrainConfig(steps=7, momentum_of_tomorrow=0.6))) != before


def test_the_hash_of_a_config_never_changes():
    """Evaluations of all runs are known by it: this fails where a default is changed, or a setting is renamed."""
    assert (
        identity.config_hash(ImageConfig())
        == identity.config_hash(ImageConfig(mesh=MeshConfig(fsdp=2)))
        == HASH_OF_DEFAULTS
    )
    assert identity.config_hash(parse({"train": {"steps": 7}, "model": {"hidden_size": 64}})) == HASH_OF_A_RUN
    grouped = {"train": {"steps": 7}, "model": {"moe": {"group_size_sequences": 8}}}
    assert identity.config_hash(parse(grouped)) == HASH_OF_A_GROUPED_RUN


HASH_OF_DEFAULTS = "44136fa355b3678a"  # of {}
HASH_OF_A_RUN = "1ef1d1efa6aac0bf"
HASH_OF_A_GROUPED_RUN = "d3457d73477ecd6b"  # written when the setting was called group_size_images


def test_long_values_are_cut_in_messages():
    assert len(str(Change("a.b", "x" * 1000, (), Effect.TRAINING))) < 150


OLDER = {"seed": 3, "train": {"num_steps": 20, "loss": "softmax", "ghost": 0}}
HISTORY = (
    Renamed("train.num_steps", "train.steps"),
    Removed("train.ghost", dispensable=(0, None), instead="train.loss does it"),
    Added("mesh.expert", before=1),
    Renamed("train.loss", "optimizer.loss"),
)


def test_settings_of_older_versions_are_read_in_todays_words():
    expected = {"seed": 3, "train": {"steps": 20}, "mesh": {"expert": 1}, "optimizer": {"loss": "softmax"}}
    assert migrate(OLDER, HISTORY) == expected
    assert migrate(expected, HISTORY) == expected
    assert "num_steps" in OLDER["train"]  # it stays as it is


def test_a_removed_setting_that_was_used_is_refused():
    older = {"train": {"ghost": 2}}
    message = r"train.ghost: expected 0 or None, since the setting was removed \(train.loss does it\); received 2"
    with pytest.raises(checks.InputError, match=message):
        migrate(older, HISTORY)
    with pytest.raises(checks.InputError, match="train: expected a group of settings; received 5"):
        migrate({"train": 5}, HISTORY)


def test_the_table_leads_to_settings_that_exist():
    known = identity.settings_of(ImageConfig())
    for migration in migrations.MIGRATIONS:
        if isinstance(migration, Added):
            assert migration.field in known
        if isinstance(migration, Renamed):
            assert migrations.new_name(migration.field) in known


def test_a_setting_is_known_by_its_first_name_and_found_under_its_last():
    history = (*HISTORY, Renamed("optimizer.loss", "task.loss"))
    assert migrations.first_name("task.loss", history) == "train.loss"
    assert migrations.new_name("train.loss", history) == "task.loss"
    assert migrations.first_name("seed", history) == migrations.new_name("seed", history) == "seed"


def test_a_runs_folder_with_the_old_name_of_a_setting_is_read():
    older = {"train": {"steps": 7}, "model": {"moe": {"group_size_images": 8}}}
    assert parse(migrate(older)).model.moe.group_size_sequences == 8
    message = "model.moe.group_size_images: expected its new name, model.moe.group_size_sequences; received "
    with pytest.raises(checks.InputError, match=message):
        parse(older)


def test_a_folder_that_the_digits_never_read_is_forgotten():
    older = {"data": {"source": "digits", "directory": "/nope"}}
    assert migrate(older)["data"] == {"source": "digits", "directory": ""}
    folder = {"data": {"source": "folder", "directory": "/there"}}
    assert migrate(folder)["data"] == folder["data"]


def test_a_step_has_no_mask_of_its_own_any_more():
    def older(mask):
        return {"model": {"router": {"inform": "attention", "options": {"attention": {"mask": mask, "sigma": 2.0}}}}}

    attention = parse_model(migrate(older("none"))["model"]).router.options["attention"]
    assert "mask" not in attention
    assert attention["sigma"] == 2.0
    message = r"options.attention.mask: expected 'none', since the setting was removed \(the model decides: .*'causal'"
    with pytest.raises(checks.InputError, match=message):
        migrate(older("causal"))
