"""Settings as a ConfigDict, which people edit, and as checked dataclasses, which the rest of the package takes."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

import ml_collections

from vmoe_inform import checks, plugins, storage
from vmoe_inform.config import groups, migrations, validate
from vmoe_inform.config.settings import CONFIGS, Config, LanguageConfig, ModelConfig
from vmoe_inform.routing import steps

JsonValue = Any
ModelT = TypeVar("ModelT", bound=ModelConfig)


def default(inputs: str = "images") -> ml_collections.ConfigDict:
    """All settings at their defaults, as the ConfigDict that a config file edits; unknown keys are refused.

    Those of steps of installed plug-ins are among them.

    Args:
      inputs: what models learn from, ``"images"`` or ``"tokens"``; the settings of data, model and evaluation differ.

    Raises:
      ValueError: other inputs.
    """
    plugins.load_installed()
    of_inputs: Any = _kind_for(inputs)
    return to_config_dict(of_inputs())


def _kind_for(inputs: Any) -> type[Config]:
    if not isinstance(inputs, str) or inputs not in CONFIGS:
        raise checks.unknown("model.inputs", f"one of {', '.join(CONFIGS)}", inputs, CONFIGS)
    return CONFIGS[inputs]


def _inputs_of(model: Any) -> Any:
    """``model.inputs`` of what may be the group ``model``; versions before there was a choice did not write it."""
    is_group = isinstance(model, Mapping | ml_collections.ConfigDict)
    return model.get("inputs", "images") if is_group else "images"


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """A config as a config file returns it; ``parse(to_config_dict(config)) == config``."""
    return groups.to_config_dict(config).lock()


@overload
def parse_model(given: ModelT) -> ModelT: ...
@overload
def parse_model(given: Mapping[str, Any] | ml_collections.ConfigDict) -> ModelConfig: ...
def parse_model(given: Any) -> ModelConfig:
    """``config.model`` as a checked dataclass.

    Args:
      given: a ConfigDict or dict with the fields of :class:`ModelConfig`, or a ModelConfig.

    Raises:
      ValueError: an unknown key, a wrong type, or an impossible combination; says field, expected, received.
    """
    plugins.load_installed()
    if isinstance(given, ModelConfig):
        model = given
    else:
        kind = groups.hint_of([_kind_for(_inputs_of(given))], "model")
        model = groups.parse_group(kind, given, "model")
    validate.check_names(model)
    model = _with_chosen_options(model)
    validate.check_model(model)
    return model


def parse(given: Any) -> Config:
    """A whole config as checked dataclasses.

    Args:
      given: a ConfigDict, a dict (``config.json``) or a Config.

    Raises:
      ValueError: as :func:`parse_model`, or one of its plug-ins cannot be imported.
    """
    for name, why in plugins.load(_plugins_of(given), files=True).items():
        raise checks.error("plugins", f"modules that can be imported ({why})", name)
    return _parse(given)


def parse_recorded(tree: Mapping[str, Any], folder: storage.Path) -> Config:
    """The config that a run wrote, of this version or an older one.

    The plug-ins that were there when the run began are imported. One that cannot be is missed only where the config
    has something of it.

    Args:
      tree: the content of ``config.json``.
      folder: of the run, from which no code is run.

    Raises:
      ValueError: as :func:`parse_model`.
    """
    tree = migrations.migrate(dict(tree))
    missing = plugins.load(_plugins_of(tree), outside=storage.resolved(folder))
    try:
        return _parse(tree)
    except checks.InputError as problem:
        for name, why in missing.items():
            raise checks.InputError(f"{problem}; the run has a plug-in {name}, which is not loaded ({why})") from None
        raise


def _plugins_of(given: Any) -> tuple[str, ...]:
    if isinstance(given, Config):
        return given.plugins
    named = given.get("plugins", ()) if isinstance(given, Mapping | ml_collections.ConfigDict) else ()
    return checks.conform("plugins", named, groups.hint_of([Config], "plugins"))


def _parse(given: Any) -> Config:
    plugins.load_installed()
    if isinstance(given, Config):
        config = given
    else:
        is_group = isinstance(given, Mapping | ml_collections.ConfigDict)
        kind = _kind_for(_inputs_of(given.get("model")) if is_group else "images")
        config = groups.parse_group(kind, given, "")
    named = tuple(dict.fromkeys((*config.plugins, *plugins.in_use())))
    config = dataclasses.replace(config, model=parse_model(config.model), plugins=named)
    validate.check_run(config)
    return config


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """A config with some fields replaced, checked as a whole.

    Args:
      config: as it was.
      values: by field, e.g. ``{"data.directory": "/data"}``.

    Raises:
      ValueError: an unknown field, or as :func:`parse`.
    """
    given = to_json(config)
    for field, value in values.items():
        groups.hint_of([type(config)], field)
        *path, name = field.split(".")
        group = given
        for key in path:
            group = group.setdefault(key, {})  # a step of the router that is new has no options yet
        group[name] = value
    return _parse(given)


def _with_chosen_options(model: ModelConfig) -> ModelConfig:
    """Keeps the options of the chosen steps only, all of them written out and resolved."""
    router, known = model.router, steps.all_steps()
    options = {
        name: {**known[name].option_defaults, **router.options.get(name, {})}
        for name in router.step_names
        if known[name].option_types
    }
    select = steps.SELECT_STEPS[router.select]
    if select.name in options:
        options[select.name] = select.resolve(bool(router.inform_steps), **options[select.name])
    return dataclasses.replace(model, router=dataclasses.replace(router, options=options))


def with_class_names(config: Config, class_names: Sequence[str]) -> Config:
    """The config with these names for its classes, unless it has some."""
    if config.data.class_names:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, class_names=tuple(class_names)))


def with_recorded(config: Config, recorded: Config) -> Config:
    """The config with what another one records of its data and this one leaves open: classes, and vocabulary."""
    config = with_class_names(config, recorded.data.class_names)
    if not isinstance(config, LanguageConfig) or not isinstance(recorded, LanguageConfig):
        return config
    return with_vocabulary(config, recorded.data.vocabulary_hash)


def with_vocabulary(config: LanguageConfig, vocabulary_hash: str) -> LanguageConfig:
    """The config with this hash for its vocabulary, unless it has one."""
    if config.data.vocabulary_hash:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, vocabulary_hash=vocabulary_hash))


def to_json(config: Config) -> dict[str, JsonValue]:
    """The resolved config as plain JSON values; ``parse(to_json(config)) == config``."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
