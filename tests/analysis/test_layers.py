"""What layers did, of hand-worked records; nothing is compiled but what adds them up."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.analysis.api import compared
from vmoe_inform.analysis.collect import choices, layers
from vmoe_inform.analysis.collect._sums import add, layer_sums
from vmoe_inform.analysis.collect.adjacencies import adjacencies, whole_matrices
from vmoe_inform.analysis.collect.traces import LayerTrace, Trace
from vmoe_inform.analysis.layer_results import Layer
from vmoe_inform.analysis.results import Change, OtherLayer

LOG = math.log


def _trace(**changes) -> Trace:
    """Two images of two tokens, three experts, one choice each: the tokens of the first image take experts 0 and 1."""
    informed = np.array([[[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]], [[0.4, 0.35, 0.25], [1.0, 0.0, 0.0]]], np.float32)
    fields = {
        "base": np.full((2, 2, 3), 1 / 3, np.float32),
        "informed": informed,
        "base_indices": np.zeros((2, 2, 1), np.int32),
        "indices": np.argmax(informed, axis=-1)[..., None].astype(np.int32),
        "weights": np.ones((2, 2, 1), np.float32),
        "load": np.eye(3, dtype=np.float32)[np.argmax(informed, axis=-1)],
        "dropped": np.array([[0, 1], [0, 0]], np.float32),
        "margin": np.array([[0.5, 0.25], [0.05, 1.0]], np.float32),
        "graph": np.array([[[1, 0], [0.5, 0.5]], [[0, 1], [0.1, 0.9]]], np.float32),
    }
    layer = LayerTrace(**(fields | changes))
    return Trace(layers={"block_1": layer}, num_experts=3)


def _layer(labels=(0, 1), **changes) -> Layer:
    return layers.of_trace(_trace(**changes), np.array(labels), num_classes=2)["block_1"]


def test_entropies_are_means_over_tokens():
    of_tokens = (
        -(0.7 * LOG(0.7) + 0.2 * LOG(0.2) + 0.1 * LOG(0.1)),
        0.5 * LOG(2) + 0.5 * LOG(4),
        -(0.4 * LOG(0.4) + 0.35 * LOG(0.35) + 0.25 * LOG(0.25)),
        0.0,
    )
    layer = _layer()
    assert layer.entropy == pytest.approx(sum(of_tokens) / 4, abs=1e-6)
    assert layer.base_entropy == pytest.approx(LOG(3), abs=1e-6)


def test_load_and_dropped():
    layer = _layer()
    assert layer.load == pytest.approx([0.75, 0.25, 0.0])
    # mean 1/3, variance ((0.75 - 1/3)^2 + (0.25 - 1/3)^2 + (1/3)^2) / 3 = 0.0972222
    assert layer.load_cv == pytest.approx(math.sqrt(0.0972222) * 3, abs=1e-5)
    assert layer.dropped == 0.25


def test_a_change_flips_tokens_whose_margin_is_at_most_twice_as_large():
    flips = _layer().flips
    found = dict(zip(flips.perturbation, flips.share, strict=True))
    # margins 0.05, 0.25, 0.5, 1
    assert found[0.02] == 0.0
    assert found[0.05] == 0.25
    assert found[0.1] == 0.25
    assert found[0.2] == 0.5
    assert found[0.5] == 1.0


def test_margins_are_counted_in_bars_up_to_the_largest():
    margin = _layer().margin
    edges, counts = np.array(margin.edges), np.array(margin.counts)
    assert len(edges) == len(counts) + 1
    assert edges[0] == 0.0
    assert edges[-1] == 1.0
    assert np.all(np.diff(edges) == pytest.approx(1 / 32, abs=1e-3))
    assert counts.sum() == 4
    for value in (0.05, 0.25, 0.5, 1.0):
        bar = min(np.searchsorted(edges, value, side="right") - 1, len(counts) - 1)
        assert counts[max(bar - 1, 0) : bar + 2].sum() >= 1
    # A quarter of the margins is up to 0.05, half up to 0.25.
    assert margin.quantiles[1:4] == pytest.approx([0.05, 0.25, 0.5], abs=1e-3)


def test_keys_that_win_rows_by_their_length():
    # Key 0 wins both rows of the first image, key 1 both of the second: each time the shorter one.
    keys = _layer(key_squares=np.array([[1.0, 4.0], [9.0, 4.0]], np.float32)).keys
    assert (keys.squares, keys.share, keys.even, keys.largest) == ((2.5, 6.5), (1.0, 0.0), 0.5, 1.0)
    assert _layer().keys is None


def test_collapsed_images_have_one_first_expert():
    layer = _layer()  # tokens of the first image take experts 0 and 1, both of the second expert 0
    assert layer.collapsed == 0.5
    assert layer.margin.mean == pytest.approx((0.05 + 0.25 + 0.5 + 1.0) / 4)


def test_the_graph_tells_to_how_many_tokens_one_attends():
    graph = _layer().graph
    # rows (1, 0), (1/2, 1/2), (0, 1), (0.1, 0.9)
    last = math.exp(-(0.1 * LOG(0.1) + 0.9 * LOG(0.9)))
    assert graph.effective_neighbours.mean == pytest.approx((1 + 2 + 1 + last) / 4, abs=1e-5)
    assert graph.effective_neighbours.quantiles[1:] == pytest.approx([1.0, 1.0, last, 2.0], abs=2e-3)
    # A token's own weight stands on the diagonal: 1, 1/2 of the first image, 0, 0.9 of the second.
    assert graph.self_weight.mean == pytest.approx(2.4 / 4)
    assert graph.self_weight.quantiles[1:4] == pytest.approx([0.0, 0.5, 0.9], abs=1e-3)
    assert _layer(graph=None).graph is None


def test_specialisation_is_the_mutual_information_of_class_and_expert():
    # Assignments by class and expert: (1, 1, 0) of class 0 and (2, 0, 0) of class 1.
    found = _layer().specialisation
    assert found.class_entropy == pytest.approx(LOG(2))
    assert found.expert_entropy == pytest.approx(-(0.75 * LOG(0.75) + 0.25 * LOG(0.25)))
    expected = 0.25 * LOG(0.25 / (0.5 * 0.75)) + 0.25 * LOG(0.25 / (0.5 * 0.25)) + 0.5 * LOG(0.5 / (0.5 * 0.75))
    assert found.mutual_information == pytest.approx(expected, abs=1e-6)
    assert found.share == ((0.5, 0.5, 0.0), (1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("load", "information"),
    [
        ([[3.0, 0.0], [0.0, 3.0]], LOG(2)),  # each class has its expert
        ([[2.0, 4.0], [1.0, 2.0]], 0.0),  # classes use the experts alike
        ([[0.0, 0.0], [1.0, 0.0]], 0.0),  # a class without images, an expert without tokens
    ],
)
def test_mutual_information_of_extremes(load, information):
    found = layers.specialisation(np.array(load))
    assert found.mutual_information == pytest.approx(information, abs=1e-12)
    assert all(sum(row) == pytest.approx(1.0) or sum(row) == 0.0 for row in found.share)


def test_certificates_are_of_the_base_probabilities():
    # One choice of three experts, by the base probabilities alone. Gaps 0.5, 0.1 and 0.4 to the next expert: 0.25, 0.05
    # and 0.2 by the margin. Rows of the identity are sqrt(2) apart: 0.354, 0.071 and 0.283 by pairs.
    base = np.array([[[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.6, 0.2, 0.2]]], np.float32)
    fields = {name: np.ones((1, 3), np.float32) for name in ("dropped", "margin")}
    layer = LayerTrace(base=base, informed=base, load=base, indices=np.zeros((1, 3, 1), np.int32), **fields)
    sums_of = jax.jit(lambda real: layer_sums(layer, real, None, num_classes=None, matrix=jnp.eye(3)))
    sums = sums_of(jnp.ones((1, 3), bool))
    found = layers.of_sums(sums, rho=1.0).certificate
    assert found.rho == 1.0
    for kind, radii in (("by_margin", [0.05, 0.2, 0.25]), ("by_pairs", [0.0707, 0.283, 0.354])):
        shares = [sum(radius > length for radius in radii) / 3 for length in found.length]
        assert getattr(found, kind) == pytest.approx(shares)
    sums = sums_of(jnp.array([[False, True, True]]))
    assert set(layers.of_sums(sums, rho=1.0).certificate.by_pairs) == {0.0, 0.5, 1.0}
    assert layers.of_sums(sums).certificate is None


@pytest.mark.parametrize(
    ("router", "layers_of", "matrix"),
    [
        ("vmoe", 2, np.eye(4)),
        ("symphony_vmoe", 2, 0.25 * np.ones((4, 4))),
        ("similarity_vmoe", 0, None),  # a token's experts depend on the other tokens
        ("symphony_across_layers_vmoe", 1, np.eye(4)),  # which leaves out the first layer
        ("expert_choice", 0, None),
        ("loss_free", 0, None),  # which adds a bias to what is no softmax
    ],
)
def test_layers_with_certificates_are_those_whose_tokens_choose_alone(router, layers_of, matrix):
    config = config_lib.parse(tiny.config_dict(router, model__moe__layers=(0, 1))).model
    state = {"symphony": {"state": np.full((4, 4), 0.25, np.float32)}}
    found = whole_matrices(config, {f"block_{layer}": {"moe": {"router": state}} for layer in (0, 1)})
    assert list(found) == ["block_0", "block_1"][:layers_of]
    for of_layer in found.values():
        assert np.asarray(of_layer) == pytest.approx(matrix)


def test_without_another_choice_there_are_no_margins():
    chosen = np.broadcast_to(np.arange(3), (2, 2, 3))
    layer = _layer(indices=chosen, margin=np.full((2, 2), np.inf, np.float32))
    assert layer.margin is None
    assert layer.flips is None
    layer = _layer(margin=None)  # experts choose
    assert layer.margin is None


def test_filler_tokens_count_nothing_and_batches_add_up():
    layer = _trace().layers["block_1"]
    sums_of = jax.jit(lambda real: layer_sums(layer, real, jnp.array([0, 1]), num_classes=2))
    whole = add(None, sums_of(jnp.ones((2, 2), bool)))
    total = None
    for token in range(4):
        total = add(total, sums_of((np.arange(4) == token).reshape(2, 2)))
    first, second = (layers.of_sums(sums) for sums in (whole, total))
    for name in ("entropy", "base_entropy", "dropped", "load_cv"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), abs=1e-6)
    for name in ("flips", "specialisation", "load"):
        assert getattr(first, name) == getattr(second, name)
    assert dataclasses.replace(first.margin, mean=None) == dataclasses.replace(second.margin, mean=None)
    assert first.margin.mean == pytest.approx(second.margin.mean, abs=1e-6)


def test_without_classes_there_is_no_specialisation():
    layer = _trace().layers["block_1"]
    found = layers.of_sums(layer_sums(layer, jnp.ones((2, 2), bool), None, num_classes=None))
    assert found.specialisation is None
    assert found.load == pytest.approx([0.75, 0.25, 0.0])


def test_fluctuation_is_of_the_set_and_of_the_first_choice():
    before = {"block_1": np.array([[[0, 1], [2, 3], [1, 0], [5, 5]]])}
    after = {"block_1": np.array([[[1, 0], [2, 0], [1, 0], [5, 5]]])}
    # The first token swaps its two, the second takes another second expert, the others stay.
    assert choices.fluctuation(before, after) == {"block_1": Change(set=0.25, first=0.25)}
    with pytest.raises(ValueError, match=r"MoE layers: expected block_1; received 'block_2'"):
        choices.fluctuation(before, {"block_2": after["block_1"]})
    with pytest.raises(ValueError, match="choices of block_1"):
        choices.fluctuation(before, {"block_1": after["block_1"][..., :1]})


def test_entropy_ratio_against_another_run():
    own = {"block_1": _layer()}
    its = dataclasses.replace(_layer(), entropy=2 * own["block_1"].entropy, load_cv=0.5)
    assert compared(own, {"block_1": its}) == {
        "block_1": OtherLayer(
            entropy_ratio=0.5, entropy=2 * own["block_1"].entropy, load_cv=0.5, load=its.load, dropped=0.25
        )
    }
    decided = dataclasses.replace(its, entropy=0.0)
    assert compared(own, {"block_1": decided})["block_1"].entropy_ratio is None
    with pytest.raises(ValueError, match="MoE layers"):
        compared(own, {})


def _symphony(**options):
    config = config_lib.default().model
    config.moe.num_experts, config.moe.layers, config.num_layers = 2, (0,), 1
    config.router.inform = "symphony"
    config.router.options.symphony.update(options)
    return config_lib.parse_model(config)


def test_spectral_gap_is_of_the_matrix_that_the_router_applies():
    def state(matrix):
        return {"block_0": {"moe": {"router": {"symphony": {"state": np.array(matrix, np.float32)}}}}}

    # Rows without a count act as identity rows: eigenvalues 1 and 1, then [[0.9, 0.1], [0.2, 0.8]]: 1 and 0.7.
    states = {20: state([[0.9, 0.1], [0.2, 0.8]]), 10: state(np.zeros((2, 2)))}
    found = adjacencies(_symphony(), states)["block_0"]
    assert found.steps == (10, 20)
    assert found.spectral_gap == pytest.approx([0.0, 0.3], abs=1e-6)
    assert np.array(found.matrix) == pytest.approx(np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert adjacencies(_symphony(), states, step=10)["block_0"].matrix == ((1.0, 0.0), (0.0, 1.0))
    # Without what is below the threshold: [[0.9, 0], [0.2, 0.8]], eigenvalues 0.9 and 0.8.
    found = adjacencies(_symphony(threshold=0.15), states)["block_0"]
    assert found.spectral_gap[1] == pytest.approx(0.2, abs=1e-6)
    assert found.matrix[0][1] == 0.0


def test_in_the_warm_up_no_expert_mixes_with_another():
    matrix = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)

    def state(acts):
        return {"adjacency": matrix, "counts": matrix, "steps": np.int32(5), "acts": np.bool_(acts)}

    states = {
        step: {"block_0": {"moe": {"router": {"symphony": {"state": state(acts)}}}}}
        for step, acts in ((5, False), (9, True))
    }
    found = adjacencies(_symphony(warmup_steps=7, identity_share=0.5), states)["block_0"]
    assert found.spectral_gap == pytest.approx([0.0, 0.15], abs=1e-6)  # half of the identity leaves half the gap of 0.3
    assert np.array(found.matrix) == pytest.approx(0.5 * np.eye(2) + 0.5 * matrix)


def test_routers_without_a_matrix_of_experts_have_no_adjacency():
    config = config_lib.default().model
    config.moe.layers, config.num_layers = (0,), 1
    assert adjacencies(config_lib.parse_model(config), {10: {}}) == {}


def test_what_was_not_kept_is_named():
    with pytest.raises(ValueError, match=r"trace of block_1: expected the field 'load'"):
        _layer(load=None)
    with pytest.raises(ValueError, match=r"labels: expected one for each of the 2 sequences; received \[3\]"):
        _layer(labels=(0, 1, 0))
    with pytest.raises(ValueError, match=r"labels: expected 0 to 1, of 2 classes; received \[0, 2\]"):
        _layer(labels=(0, 2))
    with pytest.raises(ValueError, match="the field 'indices'"):
        choices.choices(_trace(indices=None))
