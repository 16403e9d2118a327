"""The model card: what a model is, what it learned from and how, what it scores, and how it is used."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax
import jinja2
from jax import export

from vmoe_inform import text
from vmoe_inform.config import Config, ImageConfig, identity
from vmoe_inform.config.identity import Effect
from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation import facts
from vmoe_inform.evaluation.headlines import Estimate
from vmoe_inform.evaluation.results import Results
from vmoe_inform.report.scores import ScoreRow, score_rows, shown
from vmoe_inform.routing.steps import SELECT_STEPS

_TEMPLATE = "card.md.jinja"
_CLASSES_SHOWN = 10
_LONGEST_VALUE = 200  # characters of a setting
_PIPELINES = {"classification": "image-classification", "text_classification": "text-classification"}

Rows = Iterator[tuple[str, str]]  # what it is and its value; in Markdown, but for settings and inputs


@dataclass(frozen=True)
class Card:
    """What a model card says.

    Attributes:
      name: of the run.
      step: of the checkpoint.
      config: of the run, as it is published.
      parameters: their number.
      results: of an evaluation of this checkpoint; None: it was not evaluated.
      licence: of the parameters, as the publisher states it; empty: not stated.
      files: SHA-256 by name, of what lies next to the card.
      program: the exported program, if there is one.
    """

    name: str
    step: int
    config: Config
    parameters: int
    results: Results | None
    licence: str
    files: Mapping[str, str]
    program: export.Exported | None

    def markdown(self) -> str:
        """The card as Markdown, with the head that model hubs read."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("vmoe_inform.export", "."),
            autoescape=False,  # names that users chose are escaped for Markdown where they stand
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {"md": text.markdown, "code": lambda value: text.markdown_code(value, in_table=True)}
        results = {} if self.results is None else {self.name: self.results}
        return environment.get_template(_TEMPLATE).render(
            card=self,
            pipeline=_PIPELINES.get(self.config.task, "text-generation"),
            is_of_images=isinstance(self.config, ImageConfig),
            moe=self.config.model.moe,
            moe_layers=self.config.model.moe_layers,
            model=list(_model(self.config, self.parameters)),
            data=list(_data(self.config)),
            settings=list(_settings(self.config)),
            scores=[(row, _cell(row)) for row in score_rows(results)],
            group=self.config.model.moe.group_size_sequences,
            inputs=[] if self.program is None else list(_inputs(self.program)),
        )


def _model(config: Config, parameters: int) -> Rows:
    """Facts of the model."""
    model, found = config.model, facts.of_model(config, parameters)
    yield "parameters", f"{parameters:,}"
    yield "blocks, width", f"{model.num_layers}, {model.hidden_size}"
    yield "MLP, heads", f"{model.mlp_size}, {model.num_heads}"
    if found.image_size_px is not None:
        yield "image, patch", f"{found.image_size_px} px, {found.patch_size_px} px"
    if found.vocabulary_size is not None:
        yield "vocabulary, tokens of a sequence", f"{found.vocabulary_size:,}, {found.num_tokens:,}"
    if model.moe_layers:
        yield "blocks with experts", ", ".join(map(str, model.moe_layers))
        how = "" if SELECT_STEPS[model.router.select].tokens_choose else " on average"
        yield "experts, of each token", f"{model.moe.num_experts}, {model.moe.num_selected_experts}{how}"
        if model.moe.shared_experts:
            yield "shared experts", f"{model.moe.shared_experts}"
        yield "router", f"score {model.router.score}, select {model.router.select}"
        yield "router informed by", ", ".join(model.router.inform_steps) or "nothing"
    if found.allow_future:
        yield "later words", "The router may look at them. Perplexities are not those of a language model."
    if found.num_classes is not None:
        names = list(map(label_sets.short_title, config.data.class_names[:_CLASSES_SHOWN]))
        more = ", ..." if len(config.data.class_names) > _CLASSES_SHOWN else ""
        yield "classes", f"{found.num_classes:,}{': ' if names else ''}{text.markdown(', '.join(names))}{more}"


def _data(config: Config) -> Rows:
    """What the model learned from, and how an image is prepared."""
    data = config.data
    where = filter(None, (data.source, data.tfds_name, f"split {data.train_split}"))
    yield "learned from", ", ".join(map(text.markdown, where))
    yield "measured on", text.markdown(f"split {data.test_split}")
    if isinstance(config, ImageConfig):
        images = config.data
        framing = ("evaluation_crop", "evaluation_resize", "evaluation_interpolation")
        yield "part of an image", "the middle: " + ", ".join(f"{field} = {getattr(images, field)}" for field in framing)
        yield "pixels", f"in [0, 1], minus {images.pixel_mean}, divided by {images.pixel_std}"


def _settings(config: Config) -> Rows:
    """All settings that decided what was learned, where they are not their defaults."""
    for field, setting in identity.settings_of(config).items():
        decides = setting.effect in (Effect.TRAINING, Effect.RESULTS)
        if decides and field.startswith(("train.", "optimizer.", "data.")) and setting.value != setting.default:
            yield field, textwrap.shorten(json.dumps(setting.value), _LONGEST_VALUE, placeholder="...")


def _inputs(program: export.Exported) -> Rows:
    """Names, types and shapes of the second argument of a program."""
    (_, inputs), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    for name, value in inputs.items():
        yield name, f"{value.dtype} [{', '.join(map(str, value.shape))}]"


def _cell(row: ScoreRow) -> str:
    """The score of the only run of a row."""
    (score,) = row.cells
    if isinstance(score, str):
        return score
    if isinstance(score, Estimate):
        low, high = (shown(value, score.unit, digits=1) for value in (score.low, score.high))
        return f"{shown(score.value, score.unit)} [{low}, {high}]"
    return shown(score, row.unit)
