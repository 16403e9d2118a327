"""Settings of images and of text: which fields there are, and checks of those that one of them has."""

import pytest

from vmoe_inform import config as config_lib


def test_the_inputs_decide_about_the_settings():
    images, text = config_lib.default(), config_lib.default("tokens")
    images.train.steps = text.train.steps = 1
    assert isinstance(config_lib.parse(text), config_lib.LanguageConfig)
    assert isinstance(config_lib.parse(images), config_lib.ImageConfig)
    assert isinstance(config_lib.parse_model(text.model), config_lib.LanguageModelConfig)
    assert "image_size_px" not in text.model
    assert "vocabulary_size" not in images.model
    assert config_lib.parse(config_lib.to_json(config_lib.parse(text))) == config_lib.parse(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"inputs": "sound"}}, r"model.inputs: expected one of images, tokens; received 'sound'"),
        ({"model": {"inputs": "tokens", "image_size_px": 32}}, r"model: expected one of the keys .*'image_size_px'"),
        ({"model": {"inputs": "tokens", "attention_style": "previous"}}, r"model.attention_span: expected the number"),
        ({"model": {"inputs": "tokens", "attention_span": 4}}, r"model.attention_span: expected None with"),
        ({"model": {"inputs": "tokens", "causal": False}}, r"model.causal: expected true without model.num_classes"),
        (
            {"train": {"mixup_alpha": 0.2}},
            r"train.mixup_alpha: expected 0.0 with model.inputs = 'tokens'",
        ),
        ({"evaluation": {"swap_shares": (0.1, 0.1)}}, r"evaluation.swap_shares: expected distinct shares above 0"),
    ],
)
def test_bad_input_of_text(changes, message):
    given = {"train": {"steps": 1}, "model": {"inputs": "tokens"}}
    merged = {name: {**given.get(name, {}), **changes.get(name, {})} for name in given | changes}
    with pytest.raises(ValueError, match=message):
        config_lib.parse(merged)


def test_code_for_images_says_so_to_a_run_on_text():
    text = config_lib.parse({"train": {"steps": 1}, "model": {"inputs": "tokens"}})
    with pytest.raises(ValueError, match=r"model.inputs: expected 'images'; received 'tokens'"):
        config_lib.as_images(text)
    assert config_lib.as_language(text) is text
