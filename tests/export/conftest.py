"""A run to export."""

import jax
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.runs import run as runs
from vmoe_inform.sharding.mesh import make_mesh


def load(workdir):
    saved = runs.find(workdir)
    return saved, saved.load(make_mesh(1, 1, jax.devices()[:1]))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of images whose routers keep a state and whose groups have two images."""
    given = tiny.config_dict("symphony_vmoe", data__suites_directory="/secret", optimizer__learning_rate=0.003)
    config = config_lib.parse(given)
    variables = tiny.variables(models.from_config(config.model))
    return tiny.write_run(tmp_path_factory.mktemp("runs") / "my_run", config, {7: variables})


@pytest.fixture(scope="module")
def loaded(workdir):
    return load(workdir)
