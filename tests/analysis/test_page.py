"""The interactive page: what it shows is what the views hold, in a browser that a mouse, a finger and keys move."""

import dataclasses
import re

import numpy as np
import pytest

from tests.report.test_page import Visit
from vmoe_inform.analysis.images import views as views_lib
from vmoe_inform.analysis.page.render import routing_page
from vmoe_inform.report.styles import expert_colors

from .sample import views

WIDTHS = (400, 1400)
RUNS = ("attention_vmoe", "runs/imagenet/2026-11-22/attention_vmoe_s32_last2_seed0")
FOG = ("fog", 5)

# Controls and texts that are seen, and lie over each other or reach out of the window or of their own box.
MISPLACED = """() => {
  const all = [...document.querySelectorAll("h1, h2, p, select, input, button, svg, .images, .bar, .bar > *")];
  const seen = all.filter((one) => one.getClientRects().length && !one.parentElement.closest(".images"));
  const box = (one) => one.getBoundingClientRect();
  const over = (a, b) => !a.contains(b) && !b.contains(a) &&
    Math.min(box(a).right, box(b).right) - Math.max(box(a).left, box(b).left) > 1 &&
    Math.min(box(a).bottom, box(b).bottom) - Math.max(box(a).top, box(b).top) > 1;
  const outside = (one) => box(one).left < 0 || box(one).right > document.documentElement.clientWidth + 0.5;
  const cut = (one) => !one.matches("select, svg, .images") && one.scrollWidth > one.clientWidth + 1;
  const name = (one) => one.tagName + " " + one.textContent.trim().slice(0, 30);
  return [
    ...seen.filter(outside).map((one) => "outside: " + name(one)),
    ...seen.filter(cut).map((one) => "cut: " + name(one)),
    ...seen.flatMap((a, i) => seen.slice(0, i).filter((b) => over(a, b)).map((b) => name(a) + " over " + name(b))),
  ];
}"""


@pytest.fixture(scope="module")
def shown():
    """Two runs, clean and two severities of fog; an image 4 x 4 patches and the class token."""
    found = views(RUNS, num_experts=8)
    # Patch 10, which is pointed at to begin with, has the widest bar and the thickest line.
    found.views[0].layers["block_1"].neighbours.weights[0, 11, 0] = 1.0
    return found


@pytest.fixture(scope="module")
def opened(browser, shown, tmp_path_factory):
    return open_page(browser, shown, tmp_path_factory.mktemp("page"))


def open_page(browser, shown, folder):
    path = folder / "routing.html"
    path.write_text(routing_page(shown), encoding="utf-8")
    visit = Visit(browser, WIDTHS[1], path.as_uri())
    visit.page.wait_for_selector("body[data-ready]")
    return visit


@pytest.fixture
def fresh(opened):
    """The page as it begins."""
    opened.resize(WIDTHS[1])
    opened.page.reload()
    opened.page.wait_for_selector("body[data-ready]")
    return opened.page


def panel(opened_page, place):
    return opened_page.locator(".panel").nth(place)


def hover(opened_page, place, patch):
    panel(opened_page, place).locator(f"[data-at='{patch}']").hover()


def bars(opened_page, place):
    """Names and percentages of the bars beside an image."""
    found = panel(opened_page, place).locator(".bar").all_inner_texts()
    return [re.sub(r"\s+", " ", text).strip() for text in found]


def expected_bars(view, block, image, patch):
    layer = view.layers[block]
    token = patch + view.class_token
    pairs = zip(layer.experts[image, token], layer.weights[image, token], strict=True)
    found = [f"expert {expert} {round(100 * float(weight))} %" for expert, weight in pairs]
    if layer.neighbours is None:
        return found
    near = layer.neighbours
    found.append(f"itself {round(100 * float(near.itself[image, token]))} %")
    columns = view.grid[1]
    for other, weight in zip(near.others[image, token], near.weights[image, token], strict=True):
        place = int(other) - view.class_token
        name = f"row {place // columns + 1}, col. {place % columns + 1}" if place >= 0 else "class token"
        found.append(f"{name} {round(100 * float(weight))} %")
    return found


def view_of(shown, run, condition=views_lib.UNCORRUPTED):
    (found,) = [view for view in shown.views if (view.run, view.condition) == (run, condition)]
    return found


def test_page_opens_offline_and_fits_narrow_and_wide(opened):
    assert opened.complaints == []
    assert len(opened.fetched()) == 1  # the page itself
    assert_fits(opened)
    for place in (0, 1):
        panel(opened.page, place).get_by_label("Image", exact=True).select_option("fog")
    opened.page.get_by_label("Colour", exact=True).select_option("undecided")
    assert_fits(opened)


def assert_fits(opened):
    for width in WIDTHS:
        opened.resize(width)
        assert opened.page.evaluate(MISPLACED) == []
        assert not opened.is_wider_than_the_window()


def test_what_is_misplaced_is_found(fresh):
    fresh.evaluate("document.querySelector('.choice').style.height = '1rem'")
    assert any(" over " in words for words in fresh.evaluate(MISPLACED))
    fresh.evaluate("document.querySelector('h1').style.width = '20rem'")
    fresh.evaluate("document.querySelector('h1').style.whiteSpace = 'nowrap'")
    assert any(words.startswith("cut: H1") for words in fresh.evaluate(MISPLACED))


def test_hovering_shows_the_experts_and_the_neighbours(fresh, shown):
    for patch in (1, 14):
        hover(fresh, 0, patch)
        assert bars(fresh, 0) == expected_bars(view_of(shown, RUNS[0]), "block_1", 0, patch)
        # The other picture shows the same patch; there no token attends to another.
        assert bars(fresh, 1) == expected_bars(view_of(shown, RUNS[1]), "block_1", 0, patch)
    assert panel(fresh, 0).locator(".details h2").first.inner_text() == "Row 4, column 3"
    assert "only itself" in panel(fresh, 1).locator(".details").inner_text()
    assert panel(fresh, 0).locator("line.inner").count() == 6
    assert panel(fresh, 1).locator("line.inner").count() == 0


def test_lines_lead_to_neighbours_and_can_be_left_out(fresh, shown):
    hover(fresh, 0, 5)
    near = view_of(shown, RUNS[0]).layers["block_1"].neighbours.others[0, 6]  # token 0 is the class token
    ends = fresh.evaluate(
        "[...document.querySelectorAll('line.inner')].map((l) => [+l.getAttribute('x2'), +l.getAttribute('y2')])"
    )
    patches = [int(token) - 1 for token in near if token > 0]
    assert {(patch % 4 + 0.5, patch // 4 + 0.5) for patch in patches} <= {tuple(end) for end in ends}
    fresh.get_by_label("lines to neighbours").uncheck()
    assert fresh.locator("line").count() == 0


def test_layer_image_router_and_severity_change_what_is_shown(fresh, shown):
    hover(fresh, 0, 0)
    fresh.get_by_label("Layer", exact=True).select_option(label="block 3")
    assert bars(fresh, 0) == expected_bars(view_of(shown, RUNS[0]), "block_3", 0, 0)
    fresh.locator("#records button").nth(2).click()
    assert bars(fresh, 0) == expected_bars(view_of(shown, RUNS[0]), "block_3", 2, 0)
    assert "is disc" in panel(fresh, 0).inner_text() or "Right: disc" in panel(fresh, 0).inner_text()
    clean = panel(fresh, 0).locator("image").get_attribute("href")
    panel(fresh, 0).get_by_label("Image", exact=True).select_option("fog")
    panel(fresh, 0).get_by_label("Severity", exact=True).fill("2")
    assert "Severity 5 of 5" in panel(fresh, 0).inner_text()
    assert bars(fresh, 0) == expected_bars(view_of(shown, RUNS[0], FOG), "block_3", 2, 0)
    assert panel(fresh, 0).locator("image").get_attribute("href") != clean
    panel(fresh, 0).get_by_label("Router", exact=True).select_option(RUNS[1])
    assert bars(fresh, 0) == expected_bars(view_of(shown, RUNS[1], FOG), "block_3", 2, 0)


def test_verdict_says_prediction_confidence_and_share_rerouted(fresh, shown):
    panel(fresh, 0).get_by_label("Image", exact=True).select_option("fog")
    fogged, clean = view_of(shown, RUNS[0], FOG), view_of(shown, RUNS[0])
    experts = [np.sort(view.layers["block_1"].experts[0], axis=-1) for view in (fogged, clean)]
    moved = np.any(experts[0] != experts[1], axis=-1)
    said = ("golden retriever", "great white shark", "disc")[fogged.predictions[0]]
    words = panel(fresh, 0).locator(".verdict").inner_text()
    assert said in words
    assert f"({round(100 * float(fogged.confidence[0]))} % sure)" in words
    assert f"{round(100 * moved.mean())} % of the patches have other experts" in words
    assert (" moved" in panel(fresh, 1).locator(".verdict").inner_text()) is False


def test_a_class_of_the_same_name_is_not_right(browser, tmp_path):
    names = ["n02012849", "n03126707", "disc"]  # two of ImageNet's classes are called crane
    cranes = dataclasses.replace(views(RUNS, num_experts=8), class_names=names)
    view_of(cranes, RUNS[0]).predictions[:] = [1, 1, 2]  # the labels are 0, 1, 2
    visit = open_page(browser, cranes, tmp_path)
    assert "Wrong: says crane, is crane" in panel(visit.page, 0).locator(".verdict").inner_text()
    visit.page.locator("#records button").nth(1).click()
    assert "Right: crane" in panel(visit.page, 0).locator(".verdict").inner_text()
    visit.close()


def test_patches_that_go_elsewhere_are_marked_for_one_router(fresh, shown):
    marks = panel(fresh, 1).locator("circle")
    assert marks.count() == 0  # experts of two routers have nothing in common
    assert not fresh.locator("#moved").is_visible()
    panel(fresh, 1).get_by_label("Router", exact=True).select_option(RUNS[0])
    panel(fresh, 1).get_by_label("Image", exact=True).select_option("fog")
    fresh.get_by_label("lines to neighbours").uncheck()
    experts = [np.sort(view_of(shown, RUNS[0], c).layers["block_1"].experts[0]) for c in (views_lib.UNCORRUPTED, FOG)]
    assert marks.count() == np.any(experts[0] != experts[1], axis=-1).sum() > 0
    assert fresh.locator("#moved").is_visible()


def test_a_click_keeps_the_patch_until_it_is_clicked_again(fresh):
    heading = panel(fresh, 0).locator(".details h2").first
    rect = panel(fresh, 0).locator("[data-at='6']")
    rect.click()
    hover(fresh, 0, 9)
    assert heading.inner_text() == "Row 2, column 3 (kept)"
    rect.click()
    hover(fresh, 0, 9)
    assert heading.inner_text() == "Row 3, column 2"


def test_arrow_keys_walk_over_the_patches_to_the_class_token(fresh, shown):
    heading = panel(fresh, 0).locator(".details h2").first
    panel(fresh, 0).locator("svg").focus()  # begins in the middle: row 3, column 3
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowDown", "ArrowDown", "ArrowDown"):
        fresh.keyboard.press(key)
        seen.append(heading.inner_text().removesuffix(" (kept)"))
    rows = ("Row 3, column 4", "Row 3, column 4", "Row 2, column 4", "Row 3, column 4", "Row 4, column 4")
    assert seen == [*rows, "Class token"]
    assert bars(fresh, 0) == expected_bars(view_of(shown, RUNS[0]), "block_1", 0, -1)
    assert "class token: expert" in panel(fresh, 0).locator("svg").get_attribute("aria-label")
    fresh.keyboard.press("ArrowUp")
    assert heading.inner_text() == "Row 4, column 1 (kept)"
    fresh.keyboard.press("Escape")
    assert heading.inner_text() == "Row 4, column 1"


def test_colours_are_those_of_the_experts_or_shades(fresh, shown):
    fills = "[...document.querySelectorAll('.panel')[0].querySelectorAll('.patch')].map((r) => r.getAttribute('fill'))"
    layer = view_of(shown, RUNS[0]).layers["block_1"]
    colors = [tuple(round(255 * part) for part in color) for color in expert_colors(8)]
    of_experts = [colors[expert] for expert in (*layer.experts[0, 1:, 0], layer.experts[0, 0, 0])]
    assert [tuple(bytes.fromhex(fill[1:])) for fill in fresh.evaluate(fills)] == of_experts
    fresh.get_by_label("Colour", exact=True).select_option("weight")
    blue = [bytes.fromhex(fill[1:])[0] for fill in fresh.evaluate(fills)]
    weights = np.round(100 * np.r_[layer.weights[0, 1:, 0], layer.weights[0, 0, 0]])
    assert all(np.diff(np.asarray(blue)[np.argsort(weights)]) >= 0)  # cividis: the more, the more red
    assert len(set(blue)) > 3
    assert fresh.locator("#gradient").is_visible()


def test_one_expert_can_be_looked_at_alone(fresh, shown):
    fresh.get_by_role("button", name="expert 3").click()
    layer = view_of(shown, RUNS[0]).layers["block_1"]
    assert panel(fresh, 0).locator(".patch:not(.faded)").count() == np.any(layer.experts[0] == 3, axis=-1).sum()
    fresh.get_by_role("button", name="expert 3").click()
    assert panel(fresh, 0).locator(".faded").count() == 0


def test_a_finger_shows_and_keeps_a_patch(browser, shown, opened):
    context = browser.new_context(viewport={"width": 400, "height": 900}, has_touch=True)
    phone = context.new_page()
    phone.goto(opened.page.url)
    phone.wait_for_selector("body[data-ready]")
    phone.get_by_label("side by side").uncheck()
    assert not panel(phone, 1).is_visible()
    panel(phone, 0).locator("[data-at='4']").tap()
    assert bars(phone, 0) == expected_bars(view_of(shown, RUNS[0]), "block_1", 0, 4)
    assert panel(phone, 0).locator(".details h2").first.inner_text() == "Row 2, column 1 (kept)"
    context.close()


def test_many_tokens_and_experts_of_a_single_run(browser, tmp_path):
    shown = views(RUNS[:1], count=1, severities=(), num_experts=300, grid=(17, 17), class_token=False)
    visit = open_page(browser, shown, tmp_path)
    assert visit.complaints == []
    assert not visit.page.get_by_label("side by side").is_visible()
    hover(visit.page, 0, 285)
    assert bars(visit.page, 0)[:2] == expected_bars(shown.views[0], "block_1", 0, 285)[:2]
    assert [name.split(" ", 4)[:4] for name in bars(visit.page, 0)[3:]] == [
        name.split(" ", 4)[:4] for name in expected_bars(shown.views[0], "block_1", 0, 285)[3:]
    ]
    assert shown.views[0].layers["block_1"].neighbours.others[0, 285].max() > 255
    visit.close()
