"""Facts of a model on its card."""

import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.export.card import Card


@pytest.mark.parametrize(("router", "experts"), [("vmoe", "| 4, 2 |"), ("remoe", "| 4, 2 on average |")])
def test_a_token_has_k_experts_or_k_on_average(router, experts):
    card = Card("run", 8, config_lib.parse(tiny.config_dict(router)), 100, None, "", {}, None)
    assert f"| experts, of each token {experts}" in card.markdown()
