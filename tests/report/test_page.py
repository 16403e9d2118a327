"""The report in a browser: headless Chromium opens it without a network, as wide as a telephone and as a screen."""

import pytest

from vmoe_inform.report.page import write_report

from .sample_results import example, imagenet_examples, imagenet_results, results
from .sample_text_results import language_results, passages
from .test_other_routers import SWEEP

WIDTHS = (400, 1400)

# Texts that reach out of their boxes: of tables only those that cannot be scrolled. Closed details are opened first.
CUT = """() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const texts = [...document.querySelectorAll("h1, h2, h3, p, summary, figcaption, caption, th, td")];
  const cut = (box) => box.scrollWidth > box.clientWidth && getComputedStyle(box).display !== "inline";
  const outside = (box) => {
    const {left, right} = box.getBoundingClientRect();
    return left < 0 || right > document.documentElement.clientWidth;
  };
  return texts
    .filter((box) => cut(box) || (!box.closest(".scroll") && outside(box)))
    .map((box) => box.textContent.trim());
}"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Every suite of three runs on ImageNet; two small runs without some of the suites."""
    folder = tmp_path_factory.mktemp("reports")
    write_report(folder / "imagenet.html", imagenet_results(), examples={"vmoe": imagenet_examples()})
    write_report(folder / "text.html", language_results(), examples={"smoe_top2": passages()})
    shown = {"examples": {"attention_vmoe": [example(prediction="8")]}, "rerouted": {"vmoe": SWEEP}}
    write_report(folder / "missing.html", results(), **shown)
    return folder


class Visit:
    """A page that is open in the browser, with what the browser complained about and asked for."""

    def __init__(self, browser, width, address):
        self.complaints, self.requests = [], []
        context = browser.new_context(viewport={"width": width, "height": 900})
        context.set_offline(True)
        self.page = context.new_page()
        # A violated Content-Security-Policy is an error on the console too.
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def fetched(self):
        """What was asked for beside what the page itself holds."""
        return [url for url in self.requests if not url.startswith("data:")]

    def is_wider_than_the_window(self):
        return self.page.evaluate("document.documentElement.scrollWidth > innerWidth")

    def cut_texts(self):
        return self.page.evaluate(CUT)

    def close(self):
        self.page.context.close()

    def resize(self, width):
        self.page.set_viewport_size({"width": width, "height": 900})


@pytest.fixture(scope="module")
def visits(browser, reports):
    """Both reports, each opened once."""
    opened = {path.name: Visit(browser, WIDTHS[0], path.as_uri()) for path in sorted(reports.iterdir())}
    yield opened
    for visit in opened.values():
        visit.close()


@pytest.mark.parametrize("name", ["imagenet.html", "missing.html", "text.html"])
def test_page_opens_offline_and_its_text_fits(visits, reports, name):
    opened = visits[name]
    assert opened.complaints == []
    assert opened.fetched() == [(reports / name).as_uri()]
    for width in WIDTHS:
        opened.resize(width)
        assert not opened.is_wider_than_the_window()
        assert opened.cut_texts() == []
        assert not opened.is_wider_than_the_window()  # with its details open too


@pytest.mark.parametrize("width", [800, 1100])
def test_tables_that_fit_the_page_show_all_their_columns(visits, width):
    """Their pictures make room."""
    opened = visits["missing.html"]
    opened.resize(width)
    shown = opened.page.evaluate(
        "[...document.querySelectorAll('.beside .scroll')].map((box) => [box.scrollWidth, box.clientWidth])"
    )
    assert len(shown) == 1
    assert [inside for inside, outside in shown if inside > outside] == []


def test_every_picture_is_shown(visits):
    page = visits["imagenet.html"].page
    sizes = page.evaluate("[...document.images].map((image) => [image.alt, image.naturalWidth, image.clientWidth])")
    assert [alt for alt, natural, shown in sizes if natural == 0 or shown < 100] == []
    pictures = {alt.split(" for ")[-1] for alt, *_ in sizes}
    assert {"gaussian noise", "jpeg compression", "laptop, laptop computer (n03642806)"} <= pictures
    # headlines, 2 legends, 15 corruptions, reliability, 6 risk-coverage, entropy, load of 3 x 2 layers, 3 examples
    assert len(sizes) == 1 + 2 + 15 + 1 + 6 + 1 + 6 + 3


def test_tables_have_their_rows(visits):
    page = visits["imagenet.html"].page
    rows = page.evaluate("[...document.querySelectorAll('tr')].map((row) => row.textContent.replace(/\\s+/g, ' '))")
    for words in (
        "the same, over all 1,000 classes 2.00",
        "mean corruption error, in % of AlexNet's, less is better 66.00",
        "73.33 +1.38 Attention-Inform V-MoEMutual-Inform SMoE, Table 2",
        "velvetn04525038 8.0 50",
        "hash of the configuration0123456789abcdef",
    ):
        assert any(words in row for row in rows), words
    assert visits["missing.html"].page.get_by_text("put the fonts into DIRECTORY <here>").is_visible()


@pytest.fixture
def visit(browser):
    """Opens a file for one test."""
    opened = []

    def open_page(path):
        opened.append(Visit(browser, WIDTHS[0], path.as_uri()))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


PAGE = """<!doctype html><meta name="viewport" content="width=device-width"><title>t</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>body {{ margin: 0 }} td {{ white-space: nowrap }}</style>{body}"""
WIDE = "<table><tr><td>" + "a long row of words " * 10 + "</td></tr></table>"


@pytest.mark.parametrize(
    ("body", "is_wide", "is_cut"),
    [
        (WIDE, True, True),
        (f'<div class="scroll" style="overflow-x: auto">{WIDE}</div>', False, False),
        ('<div class="scroll"><h2 style="width: 5rem">Unbreakable-heading_of_a_page</h2></div>', False, True),
        ('<p style="width: 3rem; overflow: hidden">Incomprehensibilities</p>', False, True),
        ("<p>words that fit</p>", False, False),
    ],
)
def test_text_that_does_not_fit_is_found(visit, tmp_path, body, is_wide, is_cut):
    (tmp_path / "page.html").write_text(PAGE.format(body=body))
    opened = visit(tmp_path / "page.html")
    assert (opened.is_wider_than_the_window(), opened.cut_texts() != []) == (is_wide, is_cut)


def test_what_a_page_fetches_and_violates_is_found(visit, tmp_path):
    (tmp_path / "page.html").write_text(PAGE.format(body='<img src="picture.png"><script>1</script>'))
    opened = visit(tmp_path / "page.html")
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)
    (tmp_path / "other.html").write_text('<img src="picture.png">')
    opened = visit(tmp_path / "other.html")
    assert opened.fetched()[1:] == [(tmp_path / "picture.png").as_uri()]
