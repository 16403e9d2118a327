"""The report of language models: tables, pictures, comparison with the papers, passages."""

import dataclasses
import io

import numpy as np
import pytest
import rich.console

from vmoe_inform.evaluation.headlines import headline, with_interval
from vmoe_inform.evaluation.results import Reliability, RiskCoverage, SuiteResult
from vmoe_inform.report import compared, figures, language_papers, passages, scores, tables
from vmoe_inform.report.page import render_table, write_report

from .sample_results import results
from .sample_text_results import language_results
from .sample_text_results import passages as sample_passages


def text_of(table):
    console = rich.console.Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()


def test_interval_of_a_perplexity_is_that_of_its_logarithm():
    found = headline(language_results()["smoe_top2"].suites["perplexity"])
    assert (found.value, found.unit, found.count) == (35.0, "perplexity", 245_569)
    assert found.low == pytest.approx(35 * np.exp(-1.96 * 0.3 / 35))
    assert found.high == pytest.approx(35 * np.exp(1.96 * 0.3 / 35))
    other = with_interval(language_results()["smoe_top2"].suites["perplexity"], "nll", "nats")
    assert other.low == other.value == other.high  # no error is known


def test_terminal_shows_perplexities_as_they_are_with_counts_of_words_and_the_papers():
    lines = text_of(render_table(language_results())).splitlines()
    row = {line.strip().split("  ")[0]: line for line in lines if line.strip()}
    assert "words" in lines[0]
    assert "images" not in lines[0]
    first = next(line for line in lines if line.startswith("perplexity, test text"))
    assert "245,569" in first
    assert "35.00 [34.4-35.6]" in first
    assert "32.00" in first
    assert first.rstrip().endswith("34.84 / 32.03")
    assert "380.50" in row["bigram counts"]
    assert "54.00" in row["5 %"]
    assert "38.00" in row["5 %, inputs only"]
    whole = " ".join(" ".join(lines).split())
    assert "perplexities, less is better, in brackets the 95 % interval" in whole
    assert "similarity_smoe_top2: the router looks at later words" in whole


def test_rows_state_unit_order_and_how_the_text_was_read():
    rows = scores.score_rows(language_results())
    first = rows[0]
    assert (first.unit, first.less_is_better, first.counted) == ("perplexity", True, "words")
    assert first.remark == "read as 48 streams side by side; the router of similarity_smoe_top2 looks at later words"
    attacked = next(row for row in rows if row.suite == "word_swap" and row.is_headline)
    assert "1.5 % of each line's words swapped, at least one, 2.0 % of all" in attacked.remark
    assert [row.short_title for row in rows if row.suite == "word_swap"][1:] == [
        "inputs only",
        "validation text",
        *("5 %", "10 %", "5 %, inputs only", "10 %, inputs only"),
    ]


def test_a_run_is_compared_with_the_papers_model_of_its_architecture():
    rows = compared.paper_rows(language_results())
    plain = [row for row in rows if row.run == "smoe_top2"]
    assert [row.published for row in plain] == [33.29, 34.84, 41.75, 43.59]
    assert [row.difference for row in plain] == pytest.approx([0.71, 0.16, 1.25, 0.41])
    assert {row.model for row in plain} == {"SMoE (M = 2)"}
    assert plain[0].source == "Mutual-Inform SMoE, Tables 1, 3 and 6"
    assert not any(row.warning for row in rows)  # both look at later words
    found = language_results()["similarity_smoe_top2"]
    masked = dataclasses.replace(found, model=dataclasses.replace(found.model, allow_future=None))
    assert compared.paper_rows({"run": masked})[0].warning == "the paper's router looks at later words"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"block": "pre_ln"}, "block pre_ln instead of the block of the papers' programs"),
        ({"hidden_size": 128}, "its size, router, experts or their layers are of none of its tables"),
    ],
)
def test_another_model_is_not_compared_and_the_page_says_why(facts, words):
    run = language_results()["smoe_top2"]
    other = {"run": dataclasses.replace(run, model=dataclasses.replace(run.model, **facts))}
    assert compared.paper_rows(other) == []
    assert compared.not_compared(other) == [("run", words)]


def test_text_of_another_corpus_is_compared_with_no_paper():
    run = language_results()["smoe_top2"]
    other = {"run": dataclasses.replace(run, data=dataclasses.replace(run.data, source="wordnet"))}
    assert compared.paper_rows(other) == compared.not_compared(other) == []


def test_every_model_of_the_tables_is_told_apart():
    facts = [language_papers._facts(model) for model in language_papers.MODELS]
    assert len(set(facts)) == len(facts) == 24
    clean = {model.name: model.perplexity[1] for model in language_papers.MODELS}
    assert clean["Attention-inform SMoE (M = 2, K = 32)"] == 31.85
    assert clean["Similarity-inform GLaM (M = 2)"] == 34.92


def test_pictures_have_one_point_a_run_and_a_curve_for_each_variant():
    found = language_results()
    assert figures.suites_in("perplexity", found) == ["perplexity", "word_swap"]
    assert figures.suites_in("share", found) == []
    drawn = figures.headline_figure(found, unit="perplexity").axes[0]
    assert drawn.get_xlabel().startswith("perplexity, less is better")
    low, high = drawn.get_xlim()
    assert low < 32 < 44 < high
    curves = figures.swap_figures(found)
    assert list(curves) == ["text", "inputs", "validation_text", "validation_inputs"]
    lines = [line for line in curves["text"].axes[0].lines if line.get_label() in found]
    assert [line.get_xydata().tolist()[1] for line in lines] == [[2.0, 44.0], [2.0, 40.0]]
    assert figures.swap_figures(results()) == {}


def test_pictures_of_a_classifier_of_texts_count_texts():
    diagram = Reliability(confidence=(0.5,), accuracy=(0.5,), count=(9,))
    curve = RiskCoverage((1.0,), (0.5,))
    entry = SuiteResult(9, {"top1": 0.5}, counted="texts", reliability=diagram, risk_coverage=curve)
    found = dataclasses.replace(language_results()["smoe_top2"], suites={"classification": entry})
    assert figures.reliability_figure({"run": found}).axes[1].get_ylabel() == "texts"
    drawn = figures.risk_coverage_figures({"run": found})["classification"].axes[0]
    assert drawn.get_xlabel() == "texts that get an answer in %"


def test_page_speaks_of_text_and_shows_passages_as_text(tmp_path):
    write_report(tmp_path / "report.html", language_results(), examples={"smoe_top2": sample_passages()})
    page = (tmp_path / "report.html").read_text()
    assert "models of text of the Mixture-of-Experts kind" in page
    assert "image classifiers" not in page
    assert "patch" not in page
    assert "<strong>similarity_smoe_top2 looks ahead:</strong>" in page
    assert "smoe_top2 is as unsure of the next of 245,569 words as if it chose among 35" in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert 'title="expert 3"' in page
    assert 'title="12.0 nats"' in page


def test_passages_leave_filler_out_and_show_the_first_and_the_last_layer():
    found = passages.passage(sample_passages()[0], num_experts=16)
    assert list(found.rows) == ["surprise", "block_0", "block_5"]
    assert [word.text for word in found.rows["block_0"]][:2] == ["the", "router"]
    assert len(found.rows["surprise"]) == 3
    assert found.rows["block_5"][0].words == "no expert"
    labelled = {"token": np.array(["a"]), "experts": {}, "label": "x", "prediction": "y", "confidence": 0.75}
    wrong = passages.passage(labelled, num_experts=2)
    assert (wrong.title, wrong.is_wrong) == ("wrong: says y, is x (75 % sure)", True)
    with pytest.raises(ValueError, match=r"experts\['b'\]: expected 0 to 1"):
        passages.passage({**labelled, "experts": {"b": np.array([2])}}, num_experts=1)


def test_runs_of_images_and_of_text_do_not_share_a_page(tmp_path):
    mixed = {**results(), **language_results()}
    with pytest.raises(ValueError, match="results: expected runs of one kind of inputs, images or tokens"):
        write_report(tmp_path / "report.html", mixed)


def test_details_and_facts_are_in_their_units():
    rows = {words: cells for _, words, cells in tables.details(language_results())}
    assert rows["negative log-likelihood of a token"] == ["3.5553 nats", "3.4657 nats"]
    facts = dict(tables.facts(language_results()))
    assert facts["allow future"] == ["-", "yes"]
    assert facts["vocabulary size"] == ["267,735"] * 2
    assert "image size px" not in facts
