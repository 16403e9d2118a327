import copy
import math

import numpy as np
import pytest
from matplotlib.text import Text

from tests.report.test_figures import fits, lines_by_label, texts
from vmoe_inform.analysis.draw import _panels as panels
from vmoe_inform.analysis.draw import (
    adjacency,
    certificates,
    comparison,
    corruptions,
    decisions,
    experts,
    margins,
    neighbours,
)
from vmoe_inform.analysis.draw.catalogue import figures
from vmoe_inform.evaluation.corruptions import CORRUPTIONS
from vmoe_inform.report import styles

from .sample import analysis, content, of, plain_analysis, plain_content

LONG = "runs/imagenet/2026-11-22/attention_vmoe_s32_last2_seed0"
PLAIN = ["load", "entropy", "margin", "flips", "certificates", "specialisation"]
INFORMED = ["neighbours", "keys", "adjacency", "adjacency_graph", "spectral_gap"]
COMPARED = ["entropy_ratio", "fluctuation", "corruptions", "rerouted"]


def test_figures_are_those_that_there_are_data_for():
    assert list(figures(plain_analysis(num_layers=1))) == PLAIN
    found = analysis(num_layers=1)
    before = copy.deepcopy(found)
    assert sorted(figures(found)) == sorted([*PLAIN, *INFORMED, *COMPARED])
    assert found == before


def test_what_no_layer_has_is_left_out():
    found = plain_content()
    for layer in found["layers"].values():
        layer.update(margin=None, flips=None, certificate=None, specialisation=None)
    assert list(figures(of(found))) == ["load", "entropy"]


def test_a_layer_without_a_table_is_left_out_of_the_figure():
    found = content(num_layers=3)
    for key in ("margin", "flips", "graph", "keys", "adjacency", "specialisation"):
        found["layers"]["block_3"][key] = None
    drawn = figures(of(found))
    assert [axes.get_title().partition(":")[0] for axes in drawn["margin"].axes] == ["block 1", "block 5"]
    assert list(lines_by_label(drawn["flips"].axes[0])) == ["block 1", "block 5"]
    assert list(lines_by_label(drawn["spectral_gap"].axes[0])) == ["block 1", "block 5"]
    assert ticks(drawn["neighbours"].axes[0]) == ["1", "5"]
    assert [axes.get_title() for axes in drawn["keys"].axes] == ["block 1", "block 5"]
    for name in ("adjacency", "specialisation"):
        assert len(drawn[name].axes) == 2 + 1  # and the colour bar


def ticks(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_fluctuation_of_both_runs_of_the_set_and_of_the_first_expert():
    figure = decisions.fluctuation_figure(analysis())
    (axes,) = figure.axes
    lines = lines_by_label(axes)
    assert lines["attention_vmoe, set"].get_ydata() == pytest.approx([4, 6])
    assert lines["attention_vmoe, first"].get_ydata() == pytest.approx([2, 3])
    assert lines["vmoe, set"].get_ydata() == pytest.approx([10, 10])
    assert lines["vmoe, first"].get_ydata() == pytest.approx([5, 5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "attention_vmoe, step 1,242 to 1,380",
        "vmoe, step 1,200 to 1,380",
        "another set of experts",
        "another first expert",
    ]
    assert ticks(axes) == ["1", "3"]
    one = content()
    one["against"]["fluctuation"] = None  # a run with a single checkpoint
    alone = decisions.fluctuation_figure(of(one))
    assert len(lines_by_label(alone.axes[0])) == 2
    assert not [text for text in alone.findobj(Text) if "compared with" in text.get_text()]


def test_fluctuation_of_one_layer_shows_by_its_markers_what_changed():
    lines = lines_by_label(decisions.fluctuation_figure(analysis()).axes[0])
    assert {name: line.get_fillstyle() for name, line in lines.items() if name.startswith("vmoe")} == {
        "vmoe, set": "full",
        "vmoe, first": "none",
    }
    assert all(line.get_marker() not in ("", "None") for line in lines.values())


@pytest.mark.parametrize("name", [*PLAIN, *INFORMED, *COMPARED])
def test_every_figure_names_its_run_its_step_and_its_images(drawn, name):
    words = " ".join(found.get_text() for found in drawn[name].findobj(Text)).replace("\n", " ")
    assert "attention_vmoe, step 1,380" in words
    assert "200 images (clean)" in words
    if name in ("load", "entropy", "entropy_ratio", "fluctuation"):
        assert "compared with vmoe, step 1,380" in words


@pytest.fixture(scope="module")
def drawn():
    return figures(analysis())


def test_entropy_of_the_run_before_informing_and_of_the_other_run():
    (axes,) = decisions.entropy_figure(analysis()).axes
    lines = lines_by_label(axes)
    assert lines["attention_vmoe"].get_ydata() == pytest.approx([0.5 * math.log(4)] * 2)
    assert lines["attention_vmoe, before informing"].get_ydata() == pytest.approx([0.6 * math.log(4)] * 2)
    assert lines["vmoe"].get_ydata() == pytest.approx([0.7] * 2)
    assert texts(axes) == [
        "all 4 experts equally probable: 1.39",
        "attention_vmoe, step 1,380, compared with\nvmoe, step 1,380; 200 images (clean)",
    ]


def test_entropy_has_one_line_where_nothing_informs():
    found = plain_content()
    for layer in found["layers"].values():
        layer["base_entropy"] = layer["entropy"]
    assert list(lines_by_label(decisions.entropy_figure(of(found)).axes[0])) == ["attention_vmoe"]


def test_another_run_with_fewer_layers_stands_where_its_layers_are():
    found = content(num_layers=3)
    del found["against"]["layers"]["block_1"]
    assert list(lines_by_label(decisions.entropy_figure(of(found)).axes[0])["vmoe"].get_xdata()) == [1, 2]
    found["against"]["layers"]["block_3"]["entropy_ratio"] = None  # the other router is always certain
    assert ticks(decisions.entropy_ratio_figure(of(found)).axes[0]) == ["5"]


def test_entropy_ratio_of_each_layer():
    found = analysis(num_layers=8)  # 0.8, 0.83, ... 1.01
    (axes,) = decisions.entropy_ratio_figure(found).axes
    line, points = axes.get_lines()
    assert list(line.get_ydata()) == [1, 1]
    assert points.get_ydata() == pytest.approx(0.8 + 0.03 * np.arange(8))
    title = axes.get_title(loc="left").replace("\n", " ")
    assert title == "Entropy relative to vmoe: below 1 is more decided"


def test_load_has_each_expert_of_both_runs_an_even_share_and_the_cv():
    found = analysis()
    first, second, other, _ = experts.load_figure(found).axes
    heights = [[bar.get_height() for bar in axes.patches] for axes in (first, other)]
    assert heights[0] == pytest.approx([100 * share for share in found.layers["block_1"].load])
    assert heights[1] == pytest.approx([25] * 4)
    assert [bar.get_facecolor()[:3] for bar in first.patches] == styles.expert_colors(4)
    assert first.get_lines()[0].get_ydata() == pytest.approx([25, 25])
    assert first.get_title() == f"block 1: CV {found.layers['block_1'].load_cv:.2f}"
    assert [axes.get_ylabel() for axes in (first, second, other)] == ["attention_vmoe", "", "vmoe"]
    assert (texts(first), texts(second), texts(other)) == ([""], ["1 % dropped"], ["2 % dropped"])
    assert first.get_ylim() == second.get_ylim() == other.get_ylim()


def test_load_of_one_run_where_the_others_is_unknown():
    found = content()
    for layer in found["against"]["layers"].values():
        layer["load"] = None  # as in files of version 1
    assert len(experts.load_figure(of(found)).axes) == len(experts.load_figure(plain_analysis()).axes) == 2


def test_neighbours_show_the_spread_over_tokens():
    number, own = neighbours.neighbours_figure(analysis()).axes
    thin, thick, median, mean = number.get_lines()[:4]
    assert (*thin.get_ydata(), *thick.get_ydata()) == (2, 30, 5, 14)
    assert (*median.get_ydata(), *mean.get_ydata()) == (8, 9)
    assert own.get_lines()[0].get_ydata() == pytest.approx([2, 90])
    assert number.get_ylabel() == "tokens, of 65; itself included"


def test_specialisation_has_a_row_for_each_class():
    found = analysis()
    axes = experts.specialisation_figure(found).axes[0]
    shares = np.asarray(found.layers["block_1"].specialisation.share)
    np.testing.assert_allclose(axes.images[0].get_array(), 100 * shares)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2"]
    # of 3 classes and 4 experts the classes have the lower entropy, ln 3
    assert axes.get_title() == "block 1: MI 0.50 of 1.10"


def test_many_classes_are_ordered_by_their_main_expert():
    found = analysis(num_classes=40, num_experts=5)
    axes = experts.specialisation_figure(found).axes[0]
    shown = np.asarray(axes.images[0].get_array())
    main = shown.argmax(1)
    assert list(main) == sorted(main)
    of_each_expert = [shown[main == expert].max(1) for expert in range(5)]
    assert all(list(shares) == sorted(shares, reverse=True) for shares in of_each_expert)
    assert axes.get_yticklabels() == []


def test_names_of_classes_are_words_of_some_length():
    found = content(num_classes=2)
    found["class_names"] = ["n01440764", "n02099601"]
    axes = experts.specialisation_figure(of(found)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["tench", "golden retriever"]
    found["class_names"] = ["an unreasonably long name", "b"]
    axes = experts.specialisation_figure(of(found)).axes[0]
    assert axes.get_yticklabels()[0].get_text() == "an unreasonably…"


def test_margins_are_shares_of_the_tokens_with_their_median():
    found = analysis()
    margin = found.layers["block_1"].margin
    first, second = margins.margin_figure(found).axes
    values, edges, _ = first.patches[0].get_data()
    assert values == pytest.approx(100 * np.asarray(margin.counts) / 4000)
    assert tuple(edges) == margin.edges
    assert first.get_lines()[0].get_xdata()[0] == margin.median == margin.quantiles[2]
    assert first.get_ylim() == second.get_ylim()


def test_flips_over_the_size_of_the_change():
    found = analysis()
    (axes,) = margins.flips_figure(found).axes
    line = lines_by_label(axes)["block 3"]
    flips = found.layers["block_3"].flips
    assert tuple(line.get_xdata()) == flips.perturbation
    assert line.get_ydata() == pytest.approx(100 * np.asarray(flips.share))
    assert axes.get_xscale() == "log"  # 0.001 to 0.3


def test_adjacency_as_a_heat_map_with_its_numbers():
    found = analysis()
    matrix = np.asarray(found.layers["block_1"].adjacency.matrix)
    axes = adjacency.adjacency_figure(found).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), matrix)
    assert texts(axes) == [f"{value:.2f}" for value in matrix.ravel()]
    assert texts(adjacency.adjacency_figure(analysis(num_experts=9)).axes[0]) == []


MATRIX = np.array([[0.5, 0.4, 0.0, 0.1], [0.2, 0.6, 0.2, 0.0], [0.0, 0.4, 0.6, 0.0], [0.3, 0.0, 0.0, 0.7]])


def test_edges_are_means_of_both_directions():
    assert adjacency.edges_of(MATRIX, None) == pytest.approx({(0, 1): 0.3, (0, 3): 0.2, (1, 2): 0.3})


def test_each_expert_keeps_its_strongest_edges():
    weights = np.array([[0, 5, 1, 2], [5, 0, 4, 1], [1, 4, 0, 1], [2, 1, 1, 0]], float)
    # Strongest of 0: 1; of 1: 0; of 2: 1; of 3: 0.
    assert set(adjacency.edges_of(weights, 1)) == {(0, 1), (1, 2), (0, 3)}


def test_adjacency_as_a_graph_has_edges_as_wide_as_their_weight():
    found = content(num_layers=1)
    found["layers"]["block_1"]["adjacency"]["matrix"] = MATRIX.tolist()
    (axes,) = adjacency.adjacency_graph_figure(of(found)).axes
    lines, nodes = axes.collections
    np.testing.assert_allclose(nodes.get_offsets(), [[0, 1], [1, 0], [0, -1], [-1, 0]], atol=1e-12)
    assert lines.get_linewidths() == pytest.approx([5 * 2 / 3, 5, 5])  # weights 0.2, 0.3, 0.3
    first = lines.get_segments()[0]
    np.testing.assert_allclose(first, [[0, 1], [-1, 0]], atol=1e-12)  # between experts 0 and 3
    assert texts(axes) == ["0", "1", "2", "3"]


def test_an_adjacency_of_nothing_has_no_edges():
    found = content(num_layers=1)
    found["layers"]["block_1"]["adjacency"]["matrix"] = np.zeros((4, 4)).tolist()
    assert adjacency.adjacency_graph_figure(of(found)).axes[0].collections[0].get_segments() == []
    assert fits(adjacency.adjacency_figure(of(found)))


def test_one_expert_has_no_graph():
    found = content(num_experts=1, num_layers=1, num_classes=1)
    found.update(fluctuation=None, against=None, corruptions=None)
    assert "adjacency_graph" not in figures(of(found))


def test_spectral_gap_over_the_steps():
    (axes,) = adjacency.spectral_gap_figure(analysis()).axes
    line = lines_by_label(axes)["block 3"]
    assert list(line.get_xdata()) == [460, 920, 1380]
    assert line.get_ydata() == pytest.approx([0.9, 0.58, 0.48])


def test_rerouted_share_over_the_accuracy_lost():
    figure = corruptions.rerouted_figure(analysis())
    lines = lines_by_label(figure.axes[1])
    assert list(lines) == ["shot_noise", "fog", "pixelate"]
    assert lines["fog"].get_xdata() == pytest.approx([3, 12, 21, 30, 39])  # 91 % minus 88, 79, 70, 61, 52
    assert lines["fog"].get_ydata() == pytest.approx([9, 14, 19, 24, 29])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["noise", "weather", "digital"]


def test_corruptions_in_numbers():
    moved, accuracy = corruptions.corruptions_figure(analysis()).axes
    # the mean of both layers: 0.05 severity + 0.02 place + 0.01
    np.testing.assert_allclose(moved.images[0].get_array()[1], [8, 13, 18, 23, 28])
    np.testing.assert_allclose(accuracy.images[0].get_array()[1], [3, 12, 21, 30, 39])
    assert texts(accuracy)[5:10] == ["3", "12", "21", "30", "39"]
    assert [label.get_text() for label in moved.get_yticklabels()] == ["shot noise", "fog", "pixelate"]


def test_certificates_stand_next_to_what_was_measured():
    figure = certificates.certificates_figure(analysis())
    assert [axes.get_title() for axes in figure.axes] == ["block 1: rho = 0.6", "block 3: rho = 0.7"]
    lines = lines_by_label(figure.axes[1])
    assert lines["pairs"].get_ydata() == pytest.approx([99.5, 90, 50, 2])
    assert lines["noise, measured"].get_xdata() == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert lines["weather, measured"].get_ydata() == pytest.approx([91, 86, 81, 76, 71])  # fog: 100 - (9, 14, 19, ...)
    assert lines["weather, proven"].get_ydata() == pytest.approx([60, 50, 40, 30, 20])
    swapped = plain_content(num_layers=1)
    certified = {"length": [[0.1, 0.2]], "by_margin": [[0.3, 0.1]], "by_pairs": [[0.4, 0.2]]}
    swapped["swapped_words"] = {
        "share": [0.05, 0.1],
        "score": [8.0, 9.0],
        "clean_score": 7.0,
        "rerouted": {"block_1": [0.25, 0.5]},
        "certified": {"block_1": certified},
    }
    lines = lines_by_label(certificates.certificates_figure(of(swapped)).axes[0])
    assert lines["swapped words, measured"].get_ydata() == pytest.approx([75, 50])
    assert lines["swapped words, proven"].get_ydata() == pytest.approx([40, 20])
    alone = certificates.certificates_figure(plain_analysis())
    assert list(lines_by_label(alone.axes[0])) == ["pairs", "margin"]


def test_every_corruption_is_of_a_family():
    assert {corruptions.family_of(name) for name in CORRUPTIONS} == {"noise", "blur", "weather", "digital"}
    assert corruptions.family_of("rotation") == "other"


def test_comparison_has_a_line_for_each_run():
    runs = {"attention": analysis(), "plain": plain_analysis()}
    figure = comparison.comparison_figure(runs)
    by_title = {axes.get_title(): lines_by_label(axes) for axes in figure.axes}
    assert len(by_title) == 7
    assert by_title["Routing entropy"]["plain"].get_ydata() == pytest.approx([0.5 * math.log(4)] * 2)
    assert by_title["Fluctuation"]["attention"].get_ydata() == pytest.approx([4, 6])
    assert list(by_title["Fluctuation"]["plain"].get_ydata()) == []
    only_plain = comparison.comparison_figure({"plain": plain_analysis()})
    titles = [axes.get_title() for axes in only_plain.axes]
    assert titles == ["Routing entropy", "CV of the load", "Collapse", "Median margin", "Specialisation in classes"]
    assert by_title["Collapse"]["plain"].get_ydata() == pytest.approx([50, 25])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f"{run}, step 1,380 (top-1 accuracy 91.0 %)" for run in runs
    ]


def test_comparison_of_nothing_is_refused():
    with pytest.raises(ValueError, match="analyses: expected at least one"):
        comparison.comparison_figure({})


@pytest.fixture(scope="module")
def large():
    found = analysis(
        num_experts=64, num_layers=5, num_classes=40, name=LONG, other_name=LONG[:-1] + "1", corruptions=CORRUPTIONS
    )
    return {**figures(found), "comparison": comparison.comparison_figure({LONG: found, LONG[:-1]: found})}


@pytest.fixture(scope="module")
def small():
    made = content(num_layers=1, num_experts=2, num_classes=2, corruptions=("fog",))
    made["class_names"] = ["n02099601", "n01484850"]
    found = of(made)
    return {**figures(found), "comparison": comparison.comparison_figure({"a": found})}


@pytest.mark.parametrize("name", [*PLAIN, *INFORMED, *COMPARED, "comparison"])
def test_nothing_reaches_over_the_edge_and_titles_do_not_touch(small, large, name):
    for drawn in (small, large):
        figure = drawn[name]
        assert fits(figure)
        boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
        boxes += [text.get_window_extent() for text in figure.texts if text.get_text()]
        assert not any(box.overlaps(other) for place, box in enumerate(boxes) for other in boxes[:place])


def test_a_long_name_in_the_load_figure_keeps_its_end():
    found = content()
    found["run"]["name"] = LONG
    assert experts.load_figure(of(found)).axes[0].get_ylabel() == "…on_vmoe_s32_last2_seed0"


def test_a_legend_has_as_many_columns_as_fit():
    words = ["median", "mean", "half of the tokens", "9 of 10 tokens"]  # 6 + 4 + 18 + 14 = 42 characters
    assert panels._legend_columns(words, 4 * 0.6 + 42 / 13 + 0.01) == 4
    assert panels._legend_columns(words, 4 * 0.6 + 42 / 13 - 0.01) == 3
    assert panels._legend_columns(words, 0.1) == panels._legend_columns([], 9.0) == 1


def test_lines_of_a_title_are_of_about_one_length():
    assert panels.in_lines("one two three four", width=1.0, characters=20.0) == ["one two three four"]
    assert panels.in_lines("one two three four", width=1.0, characters=12.0) == ["one two", "three four"]
    assert panels.in_lines("unbreakable", width=1.0, characters=5.0) == ["unbreakable"]
    unbroken = panels.in_lines("run, step\u00a01,200; 320 windows", width=1.0, characters=12.0)
    assert unbroken == ["run,", "step 1,200;", "320 windows"]
