import dataclasses

from vmoe_inform.evaluation.results import WorstClass
from vmoe_inform.report import tables

from .sample_results import WORST_CLASSES, imagenet_results, results, with_suite


def test_corruptions_have_their_mean_over_the_severities():
    rows = dict(tables.corruption_rows(results()))
    # (90 + 80 + 60 + 50 + 40) / 5 and (80 + 70 + 50 + 40 + 40) / 5; the second run has no C
    assert rows == {"shot noise": ["64.00", "-"], "fog": ["56.00", "-"]}
    assert len(tables.corruption_rows(imagenet_results())) == 15


def test_worst_classes_are_named_in_words_and_by_wordnet_id():
    found = tables.worst_classes(imagenet_results())
    assert sorted(found) == ["a", "clean", "r", "real", "sketch", "v2"]
    assert list(found["clean"]) == ["vmoe", "similarity_vmoe", "attention_vmoe"]
    assert found["clean"]["vmoe"][2] == tables.ShownClass("laptop, laptop computer", "n03642806", 0.125, 40)
    assert tables.worst_classes(results()) == {}


def test_a_class_without_a_title_is_looked_up_or_stands_for_itself():
    worst = (dataclasses.replace(WORST_CLASSES[2], title=""), WorstClass("7", 0.5, 4))
    found = with_suite(results(), "vmoe", "clean", worst_classes=worst)
    known, digit = tables.worst_classes(found)["clean"]["vmoe"]
    assert (known.title, known.name) == ("laptop, laptop computer", "n03642806")
    assert (digit.title, digit.name) == ("7", "")


def test_what_was_evaluated_has_seed_and_data_where_results_have_them():
    found = dict(tables.facts(imagenet_results()))
    assert found["seed"] == ["0", "0", "0"]
    assert found["data: classes are imagenet"] == ["yes", "yes", "yes"]
    assert found["moe layers"][0] == "5, 7"
    assert "seed" not in dict(tables.facts(results()))


def test_details_name_the_suite_with_its_origin_and_leave_out_that_nothing_was_skipped():
    rows = {(suite, words): cells for suite, words, cells in tables.details(imagenet_results())}
    assert rows["Clean test images (TFDS)", "area under the risk-coverage curve, less is better"][0] == "10.00 %"
    assert ["3,163"] * 3 in rows.values()
    assert not any("could not be read" in words for _, words in rows)
    assert any("could not be read" in words for _, words, _ in tables.details(results()))


def test_details_say_over_how_many_classes():
    """Of a suite that masks classes and has no row for the score without the mask."""
    metrics = {"top1": 0.8, "top1_unmasked": 0.5}
    found = with_suite(imagenet_results(), "vmoe", "sketch", metrics=metrics)
    assert "the same, over all 1,000 classes" in {words for _, words, _ in tables.details(found)}
