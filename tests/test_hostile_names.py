"""Names that users chose, through every output: they stand there as they are, and command nobody."""

import dataclasses
import html.parser
import inspect
import io
import re

import matplotlib
import numpy as np
import pytest
import rich.console
from matplotlib import font_manager
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.analysis import sample as analysis_sample
from tests.report.sample_results import example, with_suite
from tests.report.sample_results import results as sample_results
from tests.studies import sample as study_sample
from vmoe_inform import lettering, text
from vmoe_inform.analysis.draw import adjacency as figures_adjacency
from vmoe_inform.analysis.draw import catalogue as analysis_figures
from vmoe_inform.analysis.draw import comparison as figures_comparison
from vmoe_inform.analysis.draw import corruptions as figures_corruptions
from vmoe_inform.analysis.draw import decisions as figures_decisions
from vmoe_inform.analysis.draw import experts as figures_experts
from vmoe_inform.analysis.draw import maps
from vmoe_inform.analysis.draw import margins as figures_margins
from vmoe_inform.analysis.draw import neighbours as figures_neighbours
from vmoe_inform.analysis.page.render import routing_page
from vmoe_inform.data.images import contact_sheet
from vmoe_inform.evaluation.results import (
    CleanData,
    Missing,
    Reliability,
    RiskCoverage,
    RouterFacts,
    SuiteResult,
    WorstClass,
)
from vmoe_inform.report import figures, routing_figures
from vmoe_inform.report import page as report
from vmoe_inform.report.page import render_table, write_report
from vmoe_inform.studies import drawing as study_figures
from vmoe_inform.studies import summary
from vmoe_inform.studies import tables as study_tables
from vmoe_inform.studies.document import StudiedRouter, Study
from vmoe_inform.training.metrics_logger import MetricsLogger

NAMES = [
    "$a$",
    r"a$b$c \$ $\frac",
    "_hidden",
    "a|b",
    "</script><script>alert(1)</script>",
    "<b>bold</b> & &amp;",
    "[bold red]x[/]",
    "狗 и кошка",
    "\u202egnorw",
    "two\nlines\r\ttab",
    "\x1b[31mred\x07",
    "long " * 60,
    "x" * 255,
    "🐕",
    "{{7*7}} {% raw %} ${x}",
    "%s %d %(a)s {0} {a}",
    "../..",
    "`tick``tock` *star* # [link](x) \\",
    "\udcff\x00",
    "",
    '\' onerror="alert(1)"',
]


def texts_of(figure: Figure) -> list[str]:
    return [found.get_text() for found in figure.findobj(Text) if found.get_text()]


def check_figure(figure: Figure, *names: str) -> None:
    """It can be drawn (warnings are errors: of glyphs that are missing too), and has these names as they are."""
    for kind in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=kind, dpi=40)
    found = texts_of(figure)
    ours = [shown for shown in found if "mathdefault" not in shown]  # numbers of a logarithmic axis
    assert not any(is_math_text(shown) is True for shown in ours)
    assert all(text.printable(shown, keep="\n") == shown for shown in found)
    whole = re.sub(r"\s+", "", "".join(found).replace(r"\$", "$"))
    for name in names:
        assert re.sub(r"\s+", "", lettering.legible(name)) in whole


def beginning(name: str) -> str:
    return name[:12]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_printable_and_file_names_are_names(name, tmp_path):
    printable = text.printable(name)
    assert printable.isprintable()
    file = text.file_name(name)
    (tmp_path / file).mkdir()
    (tmp_path / file / ("." + "0" * 16 + ".tmp")).touch()
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert len({text.file_name(other) for other in NAMES}) == len(NAMES)


def test_ordinary_file_names_stay():
    for name in ("vmoe", "attention_vmoe@share=0.5", "run 7", "Läufe", "a-b.c+d"):
        assert text.file_name(name) == name
    assert text.file_name("a/b") == "a%2Fb"
    assert text.file_name(".hidden") == "%2Ehidden"


@pytest.mark.parametrize("name", NAMES)
def test_markdown_is_code_or_escaped(name):
    row = f"| {text.markdown_code(name, in_table=True)} | {text.markdown(name)} |"
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert "\n" not in row
    span = text.markdown_code(name)
    fence = re.match("`+", span)[0]
    assert span.endswith(fence)
    assert re.findall(f"(?<!`){fence}(?!`)", span[len(fence) : -len(fence)]) == []
    assert text.printable(name) in span
    assert not re.search(r"(?<!\\)[<>*_`$\[\]|]", text.markdown(name).replace("\\\\", ""))


# ------------------------------------------------------------------------------------------------------------- figures

DRAWING = (
    figures,
    routing_figures,
    figures_adjacency,
    figures_comparison,
    figures_corruptions,
    figures_decisions,
    figures_experts,
    figures_neighbours,
    figures_margins,
    maps,
    study_figures,
)


def test_every_function_that_draws_is_plain():
    for module in DRAWING:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            draws = inspect.signature(function).return_annotation in (Figure, dict[str, Figure])
            if draws and function.__module__ == module.__name__ and not name.startswith("_"):
                assert hasattr(function, "__wrapped__"), f"{module.__name__}.{name} is not @plain"


def test_the_users_style_does_not_matter():
    with matplotlib.rc_context({"text.parse_math": False, "font.family": ["cmr10"]}):
        figure = figures.legend_figure(["$a$"])
    assert texts_of(figure) == [r"\$a\$"]
    (name,) = figure.axes[0].get_legend().get_texts()
    assert name.get_parse_math()
    assert name.get_fontfamily()[0] == lettering.FONT


def test_what_no_font_has_is_shown_as_code(monkeypatch):
    monkeypatch.setattr(lettering, "fonts", lambda: (lettering.FONT,))
    assert lettering.shown("狗 ok $") == r"\u72d7 ok \$"
    assert lettering.shown("Кошка, Köln") == "Кошка, Köln"


def test_fonts_of_the_machine_are_used_where_they_have_the_character(monkeypatch):
    class Font:
        name = "Unifont"

    monkeypatch.setattr(font_manager.fontManager, "ttflist", [Font()])
    assert lettering.fonts.__wrapped__() == (lettering.FONT, "Unifont")
    glyphs = {lettering.FONT: {ord("a")}, "Unifont": {ord("狗")}}
    monkeypatch.setattr(lettering, "_glyphs", glyphs.__getitem__)
    assert lettering.legible("a狗🐕", tuple(glyphs)) == r"a狗\U0001f415"


@pytest.fixture(scope="module")
def results():
    """Every name is a run; suites, corruptions, classes and layers have such names too."""
    first, second = sample_results().values()
    made = dict.fromkeys(NAMES, second)
    worst = tuple(WorstClass(name, 0.1, 5) for name in NAMES)
    named = {name: SuiteResult(10, {"top1": 0.5}, worst_classes=worst, origin=name) for name in NAMES}
    corrupted = dataclasses.replace(first.suites["c"], per_corruption=dict.fromkeys(NAMES, (0.5,) * 5))
    made[NAMES[0]] = dataclasses.replace(
        first,
        suites={**first.suites, **named, "c": corrupted},
        routing=dict.fromkeys(NAMES, first.routing["block_1"]),
        model=dataclasses.replace(first.model, router=RouterFacts(NAMES[0], tuple(NAMES))),
        data=CleanData(NAMES[4]),
    )
    made[NAMES[1]] = dataclasses.replace(second, missing={NAMES[2]: Missing(NAMES[4])})
    return made


def test_figures_of_the_report(results):
    ends = [lettering.legible(name)[-20:] for name in NAMES]  # of a long name a legend has the end
    check_figure(figures.headline_figure(results), *ends)
    check_figure(figures.legend_figure(list(results)), *ends)
    check_figure(routing_figures.entropy_figure(results), *ends, *NAMES[:4])
    for name, figure in figures.corruption_figures(results).items():
        check_figure(figure, lettering.legible(name.replace("_", " "))[:29])
    for name, figure in list(routing_figures.load_figures(results[NAMES[0]].routing).items())[:5]:
        check_figure(figure, lettering.legible(name)[:29])
    curve = RiskCoverage((0.5, 1.0), (0.1, 0.2))
    reliability = Reliability((0.5, 0.9), (0.5, 0.9), (10, 500))
    clean = {}
    for name in results:
        clean = with_suite(results | clean, name, "clean", risk_coverage=curve, reliability=reliability)
    check_figure(figures.risk_coverage_figures(clean)["clean"])
    check_figure(figures.reliability_figure(clean), *ends)
    for name in NAMES:
        shown = text.printable(name).partition(",")[0]
        check_figure(routing_figures.example_figure(example(label=name), num_experts=4), shown)


def test_figures_of_an_analysis():
    made = analysis_sample.content(name=NAMES[0], other_name=NAMES[2], corruptions=tuple(NAMES), num_classes=len(NAMES))
    found = analysis_sample.of(made | {"class_names": NAMES})
    drawn = analysis_figures.figures(found)
    for name, figure in drawn.items():
        shown = {
            "corruptions": [lettering.legible(n.replace("_", " "))[:29] for n in NAMES],
            "entropy": [NAMES[0], NAMES[2]],
        }
        check_figure(figure, *shown.get(name, []), *(map(beginning, NAMES[:6]) if name == "specialisation" else []))
    analyses = dict.fromkeys(NAMES, found)
    check_figure(figures_comparison.comparison_figure(analyses), *(lettering.legible(name)[-20:] for name in NAMES))
    traced = {name: (analysis_sample.images()[0], analysis_sample.trace()) for name in NAMES[:5]}
    check_figure(maps.side_by_side(traced), *NAMES[:4])


def test_a_study(tmp_path):
    routers = [name for name in NAMES if name]
    measures = {
        router: [summary.measures_of(study_sample.result("mixing", seed, clean=0.9 - 0.1 * seed)) for seed in (0, 1)]
        for router in routers
    }
    against = routers[0]
    comparisons = summary.summarize(measures, against)
    cost = {router: {"training_step": 1.0, "evaluation_batch": 1.0} for router in routers}
    drawn = study_figures.figures(comparisons, summary.overhead(cost, against), against=against, study=NAMES[0])
    for figure in drawn.values():
        check_figure(figure, against)
    assert [label.get_text() for label in drawn["load_and_cost"].axes[0].get_yticklabels()][1] == "_hidden"
    studied = {router: StudiedRouter(1, cost[router], {}) for router in routers}
    overrides = {"data.directory": "a|b`c"}
    study = Study("my|con`fig.py", overrides, against, (0, 1), {"before": 3, "last": 6}, studied)
    written = study_tables.page(study, comparisons, [])
    rows = [line for line in written.splitlines() if line.startswith("|")]
    rows = [row for row in rows if "*could have shown*" not in row]
    tables = [rows[start : start + len(routers) + 2] for start in range(0, len(rows), len(routers) + 2)]
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1
        assert [
            text.printable(router).replace("|", r"\|") in row for router, row in zip(routers, table[2:], strict=True)
        ]
    assert "Config ``my|con`fig.py`` with ``--config.data.directory=a|b`c``;" in written
    assert text.printable(written, keep="\n") == written


# --------------------------------------------------------------------------------------------------------------- pages


class Tags(html.parser.HTMLParser):
    """The tags, attributes' names and words of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.words = {}, set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_is_the_page_it_would_be_with_other_names(results, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_address", lambda figure, **_: "data:,")  # which the tests above draw

    def tags_of(results, name):
        names = list(results)
        write_report(
            tmp_path / "report.html",
            results,
            examples={names[0]: [example(label=name, prediction=name)]},
            analyses={names[0]: report.RouterFigures(1, name, 1, name, {name: "data:,"})},
        )
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert text.printable(page, keep="\n\t") == page
        return Tags(page)

    ordinary = {}
    for number, result in enumerate(results.values()):
        ordinary[f"run{number}"] = result
    hostile, plain = tags_of(results, NAMES[4]), tags_of(ordinary, NAMES[4])
    hostile.tags.pop("wbr", None), plain.tags.pop("wbr", None)
    assert hostile.tags == plain.tags
    assert hostile.attributes == plain.attributes
    words = re.sub(r"\s+", "", "".join(hostile.words))
    for name in NAMES:
        assert re.sub(r"\s+", "", text.printable(name)) in words


def test_the_page_of_an_analysis():
    made = analysis_sample.views(tuple(NAMES[:8]))
    found = routing_page(made)
    plain = routing_page(analysis_sample.views(tuple("abcdefgh")))
    assert Tags(found).tags == Tags(plain).tags
    assert found.count("</script>") == plain.count("</script>")
    assert text.printable(found, keep="\n") == found


def test_the_table_of_the_terminal(results):
    made = {name: results[name] for name in NAMES[1:]}
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, color_system=None, width=4000)
    console.print(render_table(made))
    printed = console.file.getvalue()
    assert text.printable(printed, keep="\n") == printed
    assert "[bold red]x[/]" in printed
    assert r"\x1b[31mred\x07" in printed
    assert r"\u202egnorw" in printed


def test_a_contact_sheet():
    image = np.zeros((contact_sheet.TILE_PX, contact_sheet.TILE_PX, 3), np.uint8)
    sheet = contact_sheet.draw([contact_sheet.Row(name, (name,), [image], [name]) for name in NAMES])
    assert sheet.height > len(NAMES) * contact_sheet.TILE_PX


def test_tensorboard(tmp_path):
    with MetricsLogger(tmp_path) as logger:
        logger.log(1, dict.fromkeys(NAMES, 1.0))
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
