import base64
import dataclasses
import html.parser
import io
import re
import xml.etree.ElementTree

import PIL.Image
import pytest
import rich.console

from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.results import Data, SuiteResult
from vmoe_inform.report import page as report
from vmoe_inform.report.page import render_table, write_report

from .sample_results import example, imagenet_examples, imagenet_results, results, with_suite

VOID = {"meta", "img", "br", "wbr"}


class Page(html.parser.HTMLParser):
    """Text, headings and addresses of a page; fails on a tag that is not closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.addresses, self.headings, self.cells = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[key] for key in ("src", "href", "data", "srcset") if key in attributes]
        if tag == "img":
            assert attributes["alt"]
        if tag in ("br", "span"):  # both begin a new line
            self.handle_data(" ")
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if {"h2", "h3"} & set(self.open):
            self.headings.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def row(self, title):
        """The cells after the one that begins with ``title``, up to as many as there are runs."""
        cells = [" ".join(cell.split()) for cell in self.cells]
        (place,) = [index for index, cell in enumerate(cells) if cell.startswith(title)]
        return cells[place + 1 : place + 3]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "evaluation" / "report.html"
    write_report(path, results(), examples={"attention_vmoe": [example(), example(prediction="8")]})
    return Page(path.read_text())


def table_text(found, width):
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(render_table(found))
    return [line.split() for line in console.file.getvalue().splitlines()]


SINCE = "2026-11-21T00:00:00+00:00"


def _dated():
    found = results()
    for run, day in zip(found, ("20", "22"), strict=True):
        data = Data(f"/data/{run}", "0" * 16)
        found = with_suite(found, run, "clean", evaluated=f"2026-11-{day}T14:02:33+00:00", data=data)
    return found


def test_scores_from_before_say_of_which_data_and_date_they_are(tmp_path):
    first, second = _dated()
    console = rich.console.Console(file=io.StringIO(), width=200)
    console.print(render_table(_dated(), since=SINCE))
    table = " ".join(console.file.getvalue().split())
    write_report(tmp_path / "report.html", _dated(), since=SINCE)
    page = Page((tmp_path / "report.html").read_text())
    when = f"{first}: clean: evaluated 2026-11-20 14:02 UTC, /data/{first}"
    for shown in (table, page.text):
        assert when in shown
        assert f" {second}: clean: evaluated" not in shown  # it was computed now
        assert f"{first}: c, " in shown  # of an older version, as are all the others
        assert "evaluated by an older version, which recorded neither date nor data" in shown
    days = {first: "20", second: "22"}
    assert page.row("evaluated: Clean test images") == [f"2026-11-{days[run]} 14:02 UTC, /data/{run}" for run in days]


def test_table_has_a_row_a_suite_and_a_column_a_run():
    rows = table_text(results(), 120)
    assert rows[0] == ["suite", "metric", "images", "attention_vmoe", "vmoe"]
    # Intervals: 180 and 160 of 200 (see test_headlines for the formula)
    assert ["clean", "top1", "200", "90.00", "[85.1-93.4]", "80.00", "[73.9-85.0]"] in rows
    assert ["R,", "renditions", "top1", "400", "50.00", "[45.1-54.9]", "not", "available"] in rows
    c = next(row for row in rows if row[:2] == ["C,", "corrupted"])
    assert "(generated)" in c
    assert c[-2:] == ["not", "evaluated"]


def test_table_shows_both_counts_when_they_differ():
    found = with_suite(results(), "vmoe", "clean", count=199)
    assert next(row for row in table_text(found, 120) if row[0] == "clean")[2:5] == ["200", "/", "199"]


def test_table_of_two_runs_fits_a_terminal_of_80_columns():
    console = rich.console.Console(file=io.StringIO(), width=80)
    console.print(render_table(results()))
    assert "80.00 [73.9-85.0]" in console.file.getvalue()


def test_table_has_the_papers_figures_in_a_column():
    rows = table_text(imagenet_results(), 160)
    assert rows[0] == ["suite", "metric", "images", "vmoe", "similarity_vmoe", "attention_vmoe", "paper"]
    clean, c = (next(row for row in rows if row[:1] == [name]) for name in ("clean", "C,"))
    assert clean[-5:] == ["72.71", "/", "73.21", "/", "73.33"]
    assert c[-5:] == ["48.72", "/", "-", "/", "50.85"]  # one run's C is generated
    assert "mCE, less is better 66.00 65.00 64.00" in [" ".join(row) for row in rows]
    assert "over all classes 2.00 [1.7-2.3]" in [" ".join(row[:5]) for row in rows]


def test_table_of_three_runs_loses_nothing_at_80_columns():
    words = [word for row in table_text(imagenet_results(), 80) for word in row]
    assert not any("…" in word for word in words)
    assert {"72.71", "73.71", "74.71", "73.33"} <= set(words)


def test_report_fetches_nothing(page):
    assert page.addresses
    assert all(re.match(r"data:image/(svg\+xml|png);base64,", address) for address in page.addresses)


def test_every_picture_can_be_read(page):
    kinds = []
    for address in page.addresses:
        kind, _, data = address.removeprefix("data:image/").partition(";base64,")
        content = base64.b64decode(data, validate=True)
        kinds.append(kind)
        if kind == "png":
            PIL.Image.open(io.BytesIO(content)).verify()
        else:
            assert xml.etree.ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    # headlines, legend, 2 corruptions, reliability, entropy, load of 2 + 1 layers; 2 examples
    assert (kinds.count("svg+xml"), kinds.count("png")) == (9, 2)


def test_report_says_the_scores_with_their_intervals_and_counts(page):
    assert page.row("Clean test images") == ["90.00 [85.1, 93.4]", "80.00 [73.9, 85.0]"]
    assert (
        page.row("C: corrupted images (generated) mean top-1 accuracy in % 200 images, each in 10 versions")[1]
        == "not evaluated"
    )
    assert page.row("R: the same")[1] == "not available"
    assert "attention_vmoe names 180 of 200 clean test images right." in page.text


def test_the_first_lines_are_the_sentences_of_suites(monkeypatch):
    mine = suites_lib.SuiteKind("mine", "Mine", "mine", sentence="{run}: {right} of {count} {counted}, {value} %.")
    monkeypatch.setattr(suites_lib, "kind", lambda name: mine)
    suite = SuiteResult(1_200, {"recall": 0.25}, headline="recall", counted="texts")
    found = {name: dataclasses.replace(of_run, suites={"mine": suite}) for name, of_run in results().items()}
    assert report._summary(found) == [f"{run}: 300 of 1,200 texts, 25 %." for run in found]


@pytest.mark.parametrize("suite", suites_lib.names())
def test_every_sentence_has_fields_that_the_report_fills(suite):
    filled = dict.fromkeys(("run", "count", "counted", "value", "right"), "7")
    assert "{" not in suites_lib.kind(suite).sentence.format(**filled)


def test_report_says_what_is_generated_and_what_is_missing(page):
    assert "C is generated:" in page.text
    assert "R: the same classes in another rendition: not available. put the fonts into DIRECTORY <here>" in page.text


def test_report_says_what_was_evaluated(page):
    assert page.row("training steps") == ["1,380", "1,380"]
    assert page.row("hash of the configuration") == ["0123456789abcdef", "fedcba9876543210"]
    assert page.row("router: inform") == ["attention", "none"]
    assert page.row("parameters") == ["1,234,567", "1,234,567"]
    assert page.row("Images left out because they could not be read") == ["3", "0"]
    assert page.row("Expected calibration error") == ["7.00 %", "10.00 %"]


def test_report_of_one_run_with_clean_scores_only_leaves_out_what_it_has_not(tmp_path):
    found = {"vmoe": dataclasses.replace(results()["vmoe"], missing={}, routing={})}
    write_report(tmp_path / "report.html", found)
    headings = Page((tmp_path / "report.html").read_text()).headings
    assert headings == ["Scores", "More figures", "What was evaluated"]


def test_names_from_outside_are_escaped(tmp_path):
    found = {"<script>alert(1)</script>": results()["vmoe"]}
    write_report(tmp_path / "report.html", found)
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_the_same_results_give_the_same_bytes(tmp_path):
    write_report(tmp_path / "a.html", results(), examples={"vmoe": [example()]})
    write_report(tmp_path / "b.html", results(), examples={"vmoe": [example()]})
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_bad_results_are_errors(tmp_path):
    with pytest.raises(ValueError, match="results: expected at least one run"):
        write_report(tmp_path / "report.html", {})
    with pytest.raises(ValueError, match="examples: expected names of runs with results: attention_vmoe, vmoe"):
        write_report(tmp_path / "report.html", results(), examples={"other": [example()]})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def imagenet_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("imagenet") / "report.html"
    found = imagenet_results()
    for run, result in found.items():  # pictures take their time, and test_page looks at all of them
        suites = {
            name: dataclasses.replace(suite, per_corruption={}, risk_coverage=None)
            for name, suite in result.suites.items()
        }
        found[run] = dataclasses.replace(result, suites=suites, routing={"block_5": result.routing["block_5"]})
    write_report(path, found, examples={"vmoe": imagenet_examples()[:2]})
    return Page(path.read_text())


def test_report_sets_runs_beside_the_papers(imagenet_page):
    rows = [" ".join(cell.split()) for cell in imagenet_page.cells]
    place = rows.index("C: corrupted images (generated) similarity_vmoe")
    assert rows[place + 2 : place + 4] == ["50.45", "not comparable generated images, not those of the paper"]
    place = rows.index("Clean test images (TFDS) attention_vmoe")
    assert rows[place + 2 : place + 5] == ["73.33", "+1.38", "Attention-Inform V-MoE Mutual-Inform SMoE, Table 2"]
    assert "C is generated: for similarity_vmoe the" in imagenet_page.text


def test_report_shows_failures_before_right_answers(imagenet_page):
    text = imagenet_page.text
    wrong = text.index("An image of great white shark, white shark (n01484850), taken for laptop, laptop computer")
    assert wrong < text.index("An image of great white shark, white shark (n01484850), named right")


def test_report_names_the_worst_classes(imagenet_page):
    assert "velvet n04525038" in [" ".join(cell.split()) for cell in imagenet_page.cells]
