"""An exported config names no folder of the machine that trained."""

import json

import pytest

from configs import wordnet
from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.export.public_config import public


def test_no_path_of_the_machine_is_in_it():
    config = config_lib.parse(
        tiny.config_dict(
            data__source="folder",
            data__directory="/secret/images",
            data__suites_directory="/secret/suites",
            evaluation__cache_directory="/secret/cache",
            train__initial_checkpoint="/secret/runs/first",
        )
    )
    found = public(config)
    assert "secret" not in json.dumps(config_lib.to_json(found))
    assert (found.data.directory, found.data.suites_directory, found.evaluation.cache_directory) == ("", "", "")
    assert found.train.initial_checkpoint == "first"
    assert (found.model, found.optimizer, found.data.source) == (config.model, config.optimizer, "folder")


@pytest.mark.parametrize(("tokenizer", "expected"), [("words", "words"), ("/secret/mine.json", "mine.json")])
def test_a_tokenizer_keeps_its_last_name(tokenizer, expected):
    given = wordnet.get_config("size=tiny,experts=4")
    given.data.tokenizer = tokenizer
    assert public(config_lib.parse(given)).data.tokenizer == expected


def test_a_config_without_paths_stays_as_it_is():
    config = config_lib.parse(tiny.config_dict("symphony_vmoe"))
    assert public(config) == config
