"""The page of words: what it shows is what the views hold."""

import re

import numpy as np
import pytest

from tests.analysis import sample
from tests.analysis.test_page import MISPLACED, WIDTHS
from tests.report.test_page import Visit
from vmoe_inform.analysis.collect.views import layer_views
from vmoe_inform.analysis.page.catalogue import page_of, routing_frame
from vmoe_inform.analysis.page.words import word_page
from vmoe_inform.analysis.text.views import Expected, TextView, TextViews

WORDS = ("the", "cat", "<eos>", "</script>", "Donaudampfschifffahrtsgesellschaft", "狗", " ")
RUNS = ("similarity", "plain")


def _view(run: str, count: int, num_tokens: int, *, graphs: bool, seed: int = 0) -> TextView:
    random = np.random.default_rng(seed)
    trace = sample.trace(count, grid=(1, num_tokens), class_token=False, graphs=graphs, seed=seed)
    shares = np.sort(random.dirichlet(np.ones(7), (count, num_tokens)), axis=-1)[..., ::-1][..., :3]
    likely = np.argsort(random.random((count, num_tokens, 7)), axis=-1)[..., :3] * 50_000
    return TextView(
        run=run,
        label=f"{run}, step 7",
        layers=layer_views(trace.layers, trace.num_experts),
        num_experts=trace.num_experts,
        expected=Expected(random.random((count, num_tokens)) * 8, likely, shares),
    )


def _views(count: int = 3, num_tokens: int = 16) -> TextViews:
    words = [[WORDS[(text + at) % len(WORDS)] for at in range(num_tokens + 1)] for text in range(count)]
    return TextViews(
        tokens=[of_text[:-1] for of_text in words],
        targets=[of_text[1:] for of_text in words],
        likely={50_000 * token: word for token, word in enumerate(WORDS)},
        views=[_view(run, count, num_tokens, graphs=run == RUNS[0], seed=seed) for seed, run in enumerate(RUNS)],
    )


@pytest.fixture(scope="module")
def shown():
    return _views()


@pytest.fixture(scope="module")
def opened(browser, shown, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "routing.html"
    path.write_text(word_page(shown), encoding="utf-8")
    visit = Visit(browser, WIDTHS[1], path.as_uri())
    visit.page.wait_for_selector("body[data-ready]")
    return visit


def _bars(page, place):
    found = page.locator(".panel").nth(place).locator(".bar").all_inner_texts()
    return [re.sub(r"\s+", " ", text).strip() for text in found]


def _expected_bars(views, place, text, token):
    view = views.views[place]
    layer = view.layers["block_1"]
    pairs = zip(layer.experts[text, token], layer.weights[text, token], strict=True)
    found = [f"expert {expert} {round(100 * float(weight))} %" for expert, weight in pairs]
    if (near := layer.neighbours) is not None:
        found.append(f"itself {round(100 * float(near.itself[text, token]))} %")
        for other, weight in zip(near.others[text, token], near.weights[text, token], strict=True):
            word = views.tokens[text][other].strip() or "␣"
            distance = f"−{token - other}" if other < token else f"+{other - token}"
            if round(100 * float(weight)):
                found.append(f"{word} ({distance}) {round(100 * float(weight))} %")
    for id_, share in zip(view.expected.likely[text, token], view.expected.shares[text, token], strict=True):
        found.append(f"{views.likely[id_].strip() or '␣'} {round(100 * float(share))} %")
    return found


def test_the_page_opens_offline_and_fits_narrow_and_wide(opened):
    assert opened.complaints == []
    assert len(opened.fetched()) == 1  # the page itself
    for color in ("surprise", "undecided", "weight", "expert"):
        opened.page.get_by_label("Colour", exact=True).select_option(color)
    for width in (*WIDTHS, WIDTHS[1]):
        opened.resize(width)
        assert opened.page.evaluate(MISPLACED) == []
        assert not opened.is_wider_than_the_window()


def test_pointing_at_a_word_shows_its_experts_and_whom_it_mixes_with(opened, shown):
    page = opened.page
    for text, token in ((0, 5), (2, 14)):
        page.locator("#records button").nth(text).click()
        page.locator(".panel").nth(0).locator(f"[data-at='{token}']").hover()
        for place in range(2):  # the other router shows the same word
            assert _bars(page, place) == _expected_bars(shown, place, text, token)
        assert page.locator(".panel").nth(0).locator(".word.mixed").count() > 0
        nats = float(shown.views[0].expected.nats[text, token])
        assert f"{nats:.1f} nats" in page.locator(".panel").nth(0).locator(".details").inner_text()
    assert "only itself" in page.locator(".panel").nth(1).locator(".details").inner_text()


def test_an_expert_that_is_pressed_leaves_its_words_coloured(opened, shown):
    page = opened.page
    page.locator("#records button").nth(1).click()
    page.get_by_label("expert 2", exact=True).click()
    faded = page.locator(".panel").nth(0).locator(".word.faded").count()
    assert faded == int((shown.views[0].layers["block_1"].experts[1] != 2).all(axis=-1).sum()) > 0
    page.get_by_label("expert 2", exact=True).click()


def test_a_page_that_would_be_too_large_has_fewer_texts_and_says_so():
    shown = _views(num_tokens=512)
    one = len(word_page(shown.take([0])))
    found = word_page(shown, most_bytes=int(1.2 * one))
    assert len(found) <= 1.2 * one
    assert re.search(r"[12] of 3 texts are shown", found)
    with pytest.raises(ValueError, match=r"most_bytes: expected at least .*, the page of one text; received 1000"):
        word_page(shown, most_bytes=1000)


def test_a_page_of_long_texts_is_small_enough_to_mail():
    assert len(word_page(_views(24, 512))) < 5_000_000


def test_each_kind_of_views_has_its_page(shown):
    assert "Where words go" in page_of(shown)
    assert "Where patches go" in page_of(sample.views())
    assert "Where words go" in routing_frame(shown)


def test_views_of_other_texts_or_experts_are_refused(shown):
    with pytest.raises(ValueError, match="view of similarity, block_1: expected 2 texts; received 3"):
        TextViews(tokens=shown.tokens[:2], views=shown.views)
    with pytest.raises(ValueError, match="views: expected at least one"):
        TextViews(tokens=[], views=[])
