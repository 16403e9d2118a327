"""A run with other routers, in the terminal and on the page."""

import dataclasses
import re

import pytest
import rich.console

from vmoe_inform.evaluation.comparison import Comparison, SuiteComparison
from vmoe_inform.evaluation.paired import Difference
from vmoe_inform.evaluation.rerouting import Rerouted
from vmoe_inform.evaluation.results import Data, LayerRouting
from vmoe_inform.report import other_routers, other_routers_figure, other_routers_table
from vmoe_inform.report.page import write_report

from .sample_results import results
from .sample_text_results import language_results
from .test_report import Page

INFORM = "model.router.inform"
TEMPERATURE = "model.router.options.similarity.temperature"
TOP1 = Difference(200, 0.8, 0.83, -0.0123, 0.0712, 0.18, 11, 5)
NLL = Difference(200, 0.5, 0.4321, -0.09, -0.0458, 1e-5, unit="nats", less_is_better=True)
AUPR = Difference(300, 0.75, 0.75, -1e-9, 0.0, None)


def rerouted(settings, suites, *, mixed=2.5):
    trained = results()["vmoe"]
    own = dataclasses.replace(trained, routing={"block_1": LayerRouting(0.8, (0.25,) * 4, mixed, 0.0)})
    compared = {name: SuiteComparison(Data("here", "0"), metrics) for name, metrics in suites.items()}
    return Rerouted(own, Comparison(8, "0123", settings, compared))


def printed(name, of, others, *, width=80):
    console = rich.console.Console(width=width)
    with console.capture() as captured:
        console.print(other_routers_table.render_tables(name, of, others))
    return captured.get()


SWEEP = [
    rerouted({INFORM: "similarity", TEMPERATURE: value}, {"clean": {"top1": top1, "nll": NLL}})
    for value, top1 in ((0.1, TOP1), ("sqrt_dim", dataclasses.replace(TOP1, after=0.79, gained=4, lost=6)))
]


def test_what_all_routers_share_is_said_once():
    text = printed("vmoe", results()["vmoe"], SWEEP)
    lines = [line.rstrip() for line in text.splitlines()]
    assert "vmoe with other routers, not trained: inform=similarity" in lines
    assert "clean, top-1 accuracy in %, 200 images" in lines
    heading, trained, first, second = (
        line.split() for line in lines[lines.index("clean, top-1 accuracy in %, 200 images") + 1 :][:4]
    )
    assert heading == ["similarity.temperature", "score", "change", "gained/lost", "p"]
    assert trained == ["as", "trained", "80.00"]
    assert first == ["0.1", "83.00", "+3.00", "[-1.23,", "+7.12]", "11/5", "0.180"]
    assert second == ["sqrt_dim", "79.00", "-1.00", "[-1.23,", "+7.12]", "4/6", "0.180"]
    assert "clean, negative log-likelihood in nats, less is better, 200 images" in lines
    assert re.search(r"0\.1 +0\.4321 +-0\.0679 \[-0\.0900, -0\.0458\] +< 0\.001$", text, flags=re.MULTILINE)
    assert re.search(r"each token averages.*\n *as trained +- *\n *0\.1 +2\.50", text)


def test_the_ends_of_an_interval_are_told_from_no_change():
    """Unless it takes more than three digits more than usual."""
    small = Difference(9, 93.85, 93.851, -0.0004, 0.0024, 0.118, unit="perplexity", less_is_better=True)
    (_, row) = other_routers.metric_rows(results()["vmoe"], [rerouted({}, {"clean": {"top1": small}})])[0].rows
    assert (row.score, row.change) == ("93.85", "+0.0010 [-0.0004, +0.0024]")
    (_, row) = other_routers.metric_rows(results()["vmoe"], [rerouted({}, {"clean": {"top1": AUPR}})])[0].rows
    assert row.change == "0.00 [0.00, 0.00]"


def test_a_single_router_has_its_whole_name():
    (_, row) = other_routers.metric_rows(results()["vmoe"], SWEEP[:1])[0].rows
    assert row.router == "inform=similarity, similarity.temperature=0.1"
    others = [SWEEP[0], rerouted({INFORM: "attention"}, {"clean": {"top1": TOP1}})]
    rows = other_routers.metric_rows(results()["vmoe"], others)[0].rows
    assert [row.router for row in rows] == [
        "as trained",
        "inform=similarity, similarity.temperature=0.1",
        "inform=attention",
    ]


def test_a_router_that_only_has_what_is_shared_keeps_its_name():
    others = [SWEEP[0], rerouted({INFORM: "similarity"}, {"clean": {"top1": TOP1}})]
    names = [row.router for row in other_routers.metric_rows(results()["vmoe"], others)[0].rows[1:]]
    assert names == ["inform=similarity, similarity.temperature=0.1", "inform=similarity"]


def test_a_change_of_nothing_has_no_sign_and_no_test():
    (metric, _) = other_routers.metric_rows(
        results()["attention_vmoe"], [rerouted({INFORM: "none"}, {"o": {"aupr": AUPR}})]
    )
    row = metric.rows[1]
    assert (row.change, row.records, row.p_value, row.is_clear) == ("0.00 [0.00, 0.00]", "", "", False)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_tables_fit_the_terminal(width):
    long = rerouted(
        {INFORM: "similarity", TEMPERATURE: 0.1, "model.moe.num_selected_experts": 4},
        {"clean": {"nll": NLL, "top1": TOP1}},
    )
    assert max(map(len, printed("vmoe", results()["vmoe"], [*SWEEP, long], width=width).splitlines())) <= width


def test_the_page_has_all_metrics_and_pictures(tmp_path):
    found = results()
    path = tmp_path / "report.html"
    write_report(path, found, rerouted={"vmoe": SWEEP, "attention_vmoe": []})
    page = Page(path.read_text())
    assert "With other routers, without training" in page.headings
    assert "vmoe: inform=similarity" in page.headings
    assert "2 comparisons: by chance alone" in page.text
    assert {"+3.00 [-1.23, +7.12]", "11/5", "0.180", "-0.0679 [-0.0900, -0.0458]"} <= set(page.cells)
    without = tmp_path / "without.html"
    write_report(without, found)
    before = Page(without.read_text())
    assert "other routers" not in before.text
    assert len(page.addresses) == len(before.addresses) + 1


def test_a_change_that_is_clear_is_bold(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, results(), rerouted={"vmoe": SWEEP[:1]})
    assert "<strong>-0.0679 [-0.0900, -0.0458]</strong>" in path.read_text()
    assert "<strong>+3.00" not in path.read_text()
    assert "comparisons:" not in path.read_text()  # of one nothing is to be chosen


def test_perplexities_have_a_picture_of_their_own(tmp_path):
    found = next(iter(language_results().values()))
    change = Difference(40, 31.5, 30.25, -2.0, -0.5, 0.002, unit="perplexity", less_is_better=True)
    others = [rerouted({INFORM: "similarity"}, {"perplexity": {"perplexity": change}})]
    rows, _ = other_routers.metric_rows(found, others)
    assert (rows.metric, rows.count) == ("perplexity, less is better", "40 windows")
    assert rows.rows[1].change == "-1.25 [-2.00, -0.50]"
    picture = other_routers_figure.change_figure(found, others, unit="perplexity")
    assert picture.axes[0].get_xlabel() == "change of the perplexity, less is better (bars: 95 % interval)"


def test_names_are_text(tmp_path):
    path = tmp_path / "report.html"
    hostile = rerouted({INFORM: "<script>\x1b[1m"}, {"clean": {"top1": TOP1}})
    write_report(path, results(), rerouted={"vmoe": [hostile]})
    assert "<script>" not in path.read_text()
    assert "\x1b[1m" not in printed("vmoe\x1b[1m", results()["vmoe"], [hostile])


def test_routers_of_a_run_without_results_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"rerouted: expected names of runs with results: .*; received 'other'"):
        write_report(tmp_path / "report.html", results(), rerouted={"other": SWEEP})
