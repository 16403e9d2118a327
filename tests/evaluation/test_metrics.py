import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as reference

from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation import metrics

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
LABELS = np.array([0, 1, 1])


@pytest.fixture
def random_predictions():
    generator = np.random.default_rng(0)
    return generator.normal(size=(200, 7)).astype(np.float32), generator.integers(0, 7, 200)


@pytest.mark.parametrize(("k", "hits"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1])])
def test_top_k_with_ties(k, hits):
    # Row 1: class 2 leads, then of the equal classes 0 and 1 the lower: label 1 is third. Row 2: label 1 is second.
    np.testing.assert_array_equal(metrics.top_k_hits(LOGITS, LABELS, k), np.array(hits, bool))
    assert metrics.top_k_accuracy(LOGITS, LABELS, k) == pytest.approx(sum(hits) / 3)


def test_equal_logits_are_no_better_than_the_first_class():
    assert metrics.top_k_accuracy(np.zeros((10, 10)), np.arange(10), 1) == 0.1


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_agrees_with_scikit_learn(random_predictions, k):
    logits, labels = random_predictions
    expected = reference.top_k_accuracy_score(labels, logits, k=k, labels=np.arange(7))
    assert metrics.top_k_accuracy(logits, labels, k) == pytest.approx(expected)


def test_negative_log_likelihood_by_hand():
    # -(ln 0.5 + ln 0.1) / 2 = ln(20) / 2; a constant added to the logits of an image changes nothing.
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]) + np.array([[3.0], [-700.0]])
    assert metrics.negative_log_likelihood(logits, [0, 2]) == pytest.approx(np.log(20) / 2)


def test_negative_log_likelihood_agrees_with_scikit_learn(random_predictions):
    logits, labels = random_predictions
    expected = reference.log_loss(labels, softmax(logits.astype(np.float64), axis=1), labels=np.arange(7))
    assert metrics.negative_log_likelihood(logits, labels) == pytest.approx(expected)


def test_negative_log_likelihood_of_extreme_logits_is_finite():
    assert metrics.negative_log_likelihood([[1e4, 0.0]], [1]) == pytest.approx(1e4)


def test_reliability_and_calibration_error_by_hand():
    # Confidence 0.55 hit, 0.75 miss, 0.9 hit, 0.85 miss, in five bins: (0.4, 0.6], (0.6, 0.8], and two in (0.8, 1].
    diagram = metrics.reliability([True, False, True, False], [0.55, 0.75, 0.9, 0.85], 5)
    np.testing.assert_allclose(diagram.edges, [0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert diagram.count == (0, 0, 1, 1, 2)
    np.testing.assert_allclose(diagram.accuracy, [0, 0, 1, 0, 0.5])
    np.testing.assert_allclose(diagram.confidence, [0, 0, 0.55, 0.75, 0.875])
    # (1 * 0.45 + 1 * 0.75 + 2 * 0.375) / 4 = 0.4875
    assert metrics.calibration_error(diagram) == pytest.approx(0.4875)


def test_certain_predictions_fall_into_the_last_bin():
    diagram = metrics.reliability([True], [1.0])
    assert diagram.count == (0,) * 14 + (1,)
    assert metrics.calibration_error(diagram) == 0.0


def test_log_doubt_is_that_of_the_other_classes_together():
    logits = np.random.default_rng(0).normal(size=(50, 7))
    np.testing.assert_allclose(np.exp(metrics.log_doubt(logits)), 1 - metrics.max_probability(logits), rtol=1e-9)
    np.testing.assert_allclose(metrics.log_doubt([[1000.0, 0.0, 0.0]]), np.log(2) - 1000)
    assert np.isfinite(metrics.log_doubt([[3.0]])).all()  # of a single class


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    assert metrics.reliability([True], [0.5], 2).count == (1, 0)  # bins (0, 0.5] and (0.5, 1]


def test_calibration_error_of_one_bin_is_the_gap_of_the_means(random_predictions):
    logits, labels = random_predictions
    hits, confidences = metrics.top_k_hits(logits, labels, 1), metrics.max_probability(logits)
    gap = abs(hits.mean() - confidences.mean())
    assert metrics.calibration_error(metrics.reliability(hits, confidences, 1)) == pytest.approx(gap)


def test_risk_and_coverage_by_hand():
    # From the most confident: right, wrong, right, right; errors among the first 1, 2, 3, 4: 0, 1/2, 1/3, 1/4.
    hits, confidences = [True, True, False, True], [0.5, 0.9, 0.8, 0.6]
    found = metrics.risk_coverage(hits, confidences, 4)
    assert found.coverage == (0.25, 0.5, 0.75, 1.0)
    np.testing.assert_allclose(found.risk, [0, 1 / 2, 1 / 3, 1 / 4])
    assert metrics.area_under_risk_coverage(hits, confidences) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4)
    # A coverage of 1/8 of four predictions is at least one, 3/8 are at least two.
    np.testing.assert_allclose(metrics.risk_coverage(hits, confidences, 8).risk[:3], [0, 0, 1 / 2])


def test_risk_does_not_depend_on_the_order_of_equal_confidences():
    # All as confident: every order is as likely, and the errors among any part of them are those of the whole.
    for hits in ([True, False, False, True], [False, False, True, True]):
        np.testing.assert_allclose(metrics.risk_coverage(hits, [0.5] * 4, 4).risk, [0.5] * 4)
        assert metrics.area_under_risk_coverage(hits, [0.5] * 4) == 0.5


def test_area_of_a_perfect_confidence_is_that_of_its_errors_at_the_end():
    # Of 100 the 10 wrong are the least sure: risk (i - 90) / i for i = 91 to 100.
    expected = sum((i - 90) / i for i in range(91, 101)) / 100
    found = metrics.area_under_risk_coverage(np.arange(100) >= 10, np.linspace(0.1, 0.9, 100))
    assert found == pytest.approx(expected)


def test_corruption_errors_by_hand():
    # fog: mean error 0.3 of 0.6, snow: 0.4 of 0.5: (0.5 + 0.8) / 2. Beyond the clean 0.2 of 0.3: 0.1 / 0.3, 0.2 / 0.2.
    errors = {"fog": [0.2, 0.4], "snow": [0.4, 0.4]}
    reference = {"fog": 0.6, "snow": 0.5}
    assert metrics.mean_corruption_error(errors, reference) == pytest.approx(0.65)
    relative = metrics.relative_mean_corruption_error(errors, 0.2, reference, 0.3)
    assert relative == pytest.approx((1 / 3 + 1) / 2)


def test_alexnet_is_one():
    reference, clean = label_sets.alexnet_errors()
    assert len(reference) == 15
    errors = {name: [error] * 5 for name, error in reference.items()}
    assert metrics.mean_corruption_error(errors, reference) == pytest.approx(1.0)
    assert metrics.relative_mean_corruption_error(errors, clean, reference, clean) == pytest.approx(1.0)


def test_average_precision_by_hand():
    # In the order of falling score + - + -: precision 1/1 at the first positive, 2/3 at the second.
    assert metrics.area_under_precision_recall([0.6, 0.9, 0.8, 0.7], [False, True, False, True]) == pytest.approx(5 / 6)


def test_standard_error_by_hand():
    # Mean 3/4, variance 3/16, over n = 4.
    assert metrics.standard_error([1, 0, 1, 1]) == pytest.approx(np.sqrt(3 / 16 / 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.top_k_accuracy(LOGITS, LABELS, 4), "k: expected 1 to 3 classes; received 4"),
        (lambda: metrics.top_k_accuracy(LOGITS[0], LABELS, 1), r"logits: expected shape \[images, classes\]"),
        (lambda: metrics.top_k_accuracy(LOGITS[:0], LABELS[:0], 1), "at least one of each"),
        (lambda: metrics.top_k_accuracy(LOGITS, LABELS[:2], 1), r"labels: expected shape \(3,\)"),
        (lambda: metrics.top_k_accuracy(LOGITS, LABELS + 2, 1), "labels: expected 0 to 2; received \\(2, 3\\)"),
        (lambda: metrics.negative_log_likelihood(LOGITS * np.nan, LABELS), "logits: expected finite"),
        (lambda: metrics.reliability([True], [0.5], 0), "num_bins"),
        (lambda: metrics.reliability([], []), "hits"),
        (lambda: metrics.risk_coverage([True], [0.5, 0.5]), r"confidences: expected shape \(1,\)"),
        (lambda: metrics.area_under_risk_coverage([True], [np.nan]), "confidences: expected finite"),
        (lambda: metrics.area_under_precision_recall([0.1, 0.2], [True, True]), "some positive and some negative"),
        (lambda: metrics.area_under_precision_recall([0.1, np.nan], [True, False]), "scores: expected finite"),
        (lambda: metrics.area_under_precision_recall([0.1, 0.2], [True]), "positive: expected the shape"),
        (lambda: metrics.standard_error([]), "values"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_coefficient_of_variation():
    assert metrics.coefficient_of_variation([0.25] * 4) == 0.0
    assert metrics.coefficient_of_variation([0.5, 0.5, 0.0, 0.0]) == pytest.approx(1.0)  # all 1/4 off a mean of 1/4
    assert metrics.coefficient_of_variation([1.0, 0.0, 0.0, 0.0]) == pytest.approx(np.sqrt(3))
    assert metrics.coefficient_of_variation([0.0, 0.0]) == 0.0
