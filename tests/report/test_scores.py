import dataclasses

import pytest

from vmoe_inform.evaluation.headlines import wilson_interval
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.report import compared, entries, scores

from .sample_results import imagenet_results, results, with_suite


def rows_of(found, suite):
    return [row for row in scores.score_rows(found) if row.suite == suite]


def test_masked_and_unmasked_figures_stand_below_each_other():
    headline, unmasked = rows_of(imagenet_results(), "a")
    assert headline.remark == "over 200 classes"
    assert headline.cells[0].value == pytest.approx(0.0527)
    assert unmasked.metric == "the same, over all 1,000 classes"
    assert [cell.value for cell in unmasked.cells] == pytest.approx([0.02, 0.03, 0.04])
    # Standard error 0.0015 at a share of 0.02 is that of 0.02 * 0.98 / 0.0015^2 draws.
    assert (unmasked.cells[0].low, unmasked.cells[0].high) == pytest.approx(wilson_interval(0.02, 0.0196 / 0.0015**2))


def test_mce_is_a_ratio_without_an_interval_and_less_is_better():
    headline, mce, relative = rows_of(imagenet_results(), "c")
    assert (headline.key, mce.key, relative.key) == ("mean_top1", "mce", "relative_mce")
    assert mce.cells == pytest.approx((0.66, 0.65, 0.64))
    assert relative.cells == pytest.approx((0.92, 0.91, 0.90))
    assert (headline.less_is_better, mce.less_is_better, relative.less_is_better) == (False, True, True)


def test_attacks_say_how_strong_they_are_and_what_the_images_were_before():
    headline, before, without_gradient = rows_of(imagenet_results(), "pgd")
    assert headline.remark == "pixels changed by up to 1/255, margin loss, 10 steps, seed 0"
    assert before.cells[0].value == pytest.approx(0.7271)
    assert without_gradient.cells[0].value == pytest.approx(0.0021)
    assert without_gradient.less_is_better


def test_few_shot_has_a_row_for_each_number_of_images_and_the_most_are_the_headline():
    headline, one, five = rows_of(imagenet_results(), "fewshot")
    assert headline.remark == "from 10 training images of each class"
    assert [row.metric for row in (one, five)] == [
        "from 1 training image of each class",
        "from 5 training images of each class",
    ]
    assert [row.cells[0].value for row in (headline, one, five)] == pytest.approx([0.61, 0.31, 0.55])


def test_titles_say_where_images_are_from():
    found = imagenet_results()
    assert entries.title(found, "a").endswith("(published tar)")
    assert entries.title(found, "c").endswith("(published folder / generated)")
    assert entries.mixed_origins(found) == [entries.title(found, "c")]
    assert entries.title(results(), "c") == "C: corrupted images (generated)"
    assert entries.title(results(), "clean") == "Clean test images"


def test_a_runs_score_stands_beside_the_papers_with_the_difference_in_points():
    rows = compared.paper_rows({"vmoe": imagenet_results()["vmoe"]})
    found = {(row.title.partition(" ")[0], row.source[:13]): (row.published, row.difference) for row in rows}
    assert found == {
        ("Clean", "Mutual-Inform"): (72.71, 0.0),
        ("R:", "Mutual-Inform"): (35.42, 0.0),
        ("A:", "Mutual-Inform"): (5.27, 0.0),
        ("C:", "Mutual-Inform"): (48.72, pytest.approx(48.0 - 48.72)),
        ("Clean", "V-MoE's code,"): (73.1, pytest.approx(72.71 - 73.1)),
        ("V2:", "V-MoE's code,"): (59.2, 0.0),
    }
    assert not any(row.warning for row in rows)


def test_generated_images_are_not_compared_with_the_papers():
    found = imagenet_results()
    (row,) = [row for row in compared.paper_rows(found) if "generated" in row.title]
    assert (row.run, row.published, row.difference) == ("similarity_vmoe", 50.45, None)
    assert row.warning == "generated images, not those of the paper"
    assert rows_of(found, "c")[0].published == (48.72, None, 50.85)


def test_a_part_of_a_set_is_compared_with_a_warning():
    found = with_suite({"vmoe": imagenet_results()["vmoe"]}, "vmoe", "a", count=750)
    (row,) = [row for row in compared.paper_rows(found) if row.title.startswith("A:")]
    assert (row.difference, row.warning) == (0.0, "over 750 of 7,500 images")


def test_runs_of_other_models_are_named_with_what_differs():
    found = imagenet_results()
    found["vmoe"] = dataclasses.replace(found["vmoe"], model=dataclasses.replace(found["vmoe"].model, experts=16))
    assert {row.run for row in compared.paper_rows(found)} == {"similarity_vmoe", "attention_vmoe"}
    assert compared.not_compared(found) == [("vmoe", "experts 16 instead of 8 experts")]
    assert (compared.paper_rows(results()), compared.not_compared(results())) == ([], [])


def test_a_suite_of_a_plug_in_that_is_not_loaded_is_called_by_its_own_headline():
    suite = SuiteResult(10, {"mean_recall": 0.5, "top1": 0.9}, headline="mean_recall")
    found = {name: dataclasses.replace(of_run, suites={"mine": suite}) for name, of_run in results().items()}
    row = next(row for row in scores.score_rows(found) if row.suite == "mine")
    assert (row.key, row.metric, row.cells[0].value) == ("mean_recall", "mean recall", 0.5)
