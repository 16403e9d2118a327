"""The language model against a plain-numpy reference of the papers' block, and what must hold of any causal model."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform.nn import models
from vmoe_inform.nn.cross_entropy import mean_loss, token_losses
from vmoe_inform.performance import costs
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.sharding.rules import gathered, tree_shardings

V, N, D, H, P, E, K = 23, 6, 8, 2, 9, 4, 2
PREVIOUS = {"attention_style": "previous", "attention_span": P, "block": "post_ln_double", "activation": "relu"}
STYLES = pytest.mark.parametrize("style", [{}, PREVIOUS], ids=["causal", "previous"])
ROUTER = {"score": "linear", "losses": [], "noise_std": 0.0, "options": {"linear": {"bias": True}}}


def _config(**overrides: Any) -> dict[str, Any]:
    moe = {"layers": "every2", "num_experts": E, "num_selected_experts": K, "dispatch": "gather"}
    sizes = {"vocabulary_size": V, "num_tokens": N, "num_layers": 2, "hidden_size": D, "mlp_size": 12, "num_heads": H}
    return {"inputs": "tokens", **sizes, "moe": moe, "router": ROUTER, **overrides}


@functools.cache
def _made(style: str, **overrides: Any) -> tuple[models.Model, dict[str, Any]]:
    model = models.from_config(_config(**({} if style == "causal" else PREVIOUS), **overrides))
    return model, tiny.variables(model)


def _tokens(seed: int = 0, batch: int = 3, length: int = N) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, V, (batch, length)), jnp.int32)


# ------------------------------------------------------------------------------------------------------- the reference


def _norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def _reference_attention(p, relative, h, memory):
    """One query at a time: the P tokens before it, from the memory where the sequence has none, and never itself."""
    everything = np.concatenate([memory, h])
    out = np.zeros_like(h)
    for head in range(H):
        query, key, value, output = (p[name]["kernel"] for name in ("query", "key", "value", "output"))
        for i, token in enumerate(h):
            before = everything[i : i + P]
            q = token @ query[:, head]
            keys = before @ key[:, head] + relative[::-1]  # the nearest token is last
            weights = _softmax(keys @ q / np.sqrt(D // H))
            out[i] += weights @ (before @ value[:, head]) @ output[head]
    return out


def _reference_mlp(hidden, output, x):
    return np.maximum(x @ hidden["kernel"] + hidden["bias"], 0) @ output["kernel"] + output["bias"]


def _reference_moe(p, x):
    """One token at a time: top K of a linear gate with bias, softmax over the chosen."""
    gate, experts = p["router"]["linear"], p["experts"]
    out = np.zeros_like(x)
    for i, token in enumerate(x):
        logits = token @ gate["kernel"] + gate["bias"]
        chosen = np.argsort(-logits)[:K]
        for weight, e in zip(_softmax(logits[chosen]), chosen, strict=True):
            layers = ({name: experts[layer][name][e] for name in ("kernel", "bias")} for layer in ("hidden", "output"))
            out[i] += weight * _reference_mlp(*layers, token)
    return out


def _reference(params, tokens, memory):
    """Logits of one sequence, and what each block's attention saw."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    h, seen = p["vocabulary"]["embedding"][tokens], {}
    for layer in ("block_0", "block_1"):
        b = p[layer]
        seen[layer] = np.concatenate([memory[layer], h])[-P:]
        h = _norm(b["attention_norm"], h + _reference_attention(b["attention"], p["relative_keys"], h, memory[layer]))
        if "moe" in b:
            h = _norm(b["mlp_norm"], h + _norm(b["moe_norm"], h + _reference_moe(b["moe"], h)))
        else:
            h = _norm(b["mlp_norm"], h + _reference_mlp(b["mlp"]["hidden"], b["mlp"]["output"], h))
    return h @ p["vocabulary"]["kernel"] + p["vocabulary"]["bias"], seen


def test_the_papers_block_is_that_of_plain_numpy():
    model, variables = _made("previous")
    tokens = _tokens()
    apply = jax.jit(model.apply)
    (first, aux), (alone, _) = apply(variables, tokens), apply(variables, tokens, memory=model.initial_memory(3))
    np.testing.assert_array_equal(first, alone)  # no memory is one of zeros
    second, after = apply(variables, _tokens(1), memory=aux["memory"])
    for row in range(3):
        zeros = {f"block_{layer}": np.zeros((P, D)) for layer in range(2)}
        expected, seen = _reference(variables["params"], np.asarray(tokens[row]), zeros)
        np.testing.assert_allclose(first[row], expected, rtol=1e-5, atol=1e-5)
        expected, seen = _reference(variables["params"], np.asarray(_tokens(1)[row]), seen)
        np.testing.assert_allclose(second[row], expected, rtol=1e-5, atol=1e-5)
        for name, values in seen.items():
            np.testing.assert_allclose(after["memory"][name][row], values, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("block_size", [None, 4])
def test_carried_memory_is_one_long_window(block_size):
    """With a span of 9, three windows of 4 reach back over two; the gate has no noise and drops nothing."""
    overrides = {"num_tokens": 12, "attention_block_size": block_size}
    model, variables = _made("previous", **overrides)
    tokens, memory, parts = _tokens(length=12), None, []
    long, aux = jax.jit(model.apply)(variables, tokens)
    for start in range(0, 12, 4):
        logits, left = jax.jit(model.apply)(variables, tokens[:, start : start + 4], memory=memory)
        memory = left["memory"]
        parts.append(logits)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), long, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), memory, aux["memory"])


def test_no_gradient_reaches_the_sequence_before():
    model, variables = _made("previous")
    memory = jax.tree.map(lambda leaf: leaf + 1.0, model.initial_memory(3))

    def loss(memory):
        logits, aux = model.apply(variables, _tokens(), memory=memory)
        return jnp.sum(logits**2) + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(aux["memory"]))

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(memory)))


@STYLES
def test_no_bit_moves_before_a_token_that_changes_and_no_gradient_comes_from_it(style):
    model, variables = _made("previous" if style else "causal")
    embedding = variables["params"]["vocabulary"]["embedding"]
    apply = jax.jit(lambda tokens: model.apply(variables, tokens)[0])
    tokens, others = _tokens(), (_tokens() + 1) % V
    for t in range(N):
        changed = jnp.concatenate([tokens[:, : t + 1], others[:, t + 1 :]], axis=1)
        np.testing.assert_array_equal(apply(changed)[:, : t + 1], apply(tokens)[:, : t + 1])
    assert not np.array_equal(
        apply(tokens.at[:, 0].set(others[:, 0]))[:, -1], apply(tokens)[:, -1]
    )  # it does look back
    distinct = jnp.arange(N, dtype=jnp.int32)[None]  # so that rows of the embedding are positions

    @jax.jit
    def gradient(embedding, t):
        params = {**variables["params"], "vocabulary": {**variables["params"]["vocabulary"], "embedding": embedding}}
        return jnp.sum(jax.lax.dynamic_index_in_dim(model.apply({"params": params}, distinct)[0], t, 1) ** 2)

    for t in (0, 3):
        rows = jax.grad(gradient)(embedding, t)[:N]
        assert not np.any(rows[t + 1 :])
        assert np.all(np.any(rows[: t + 1], axis=1))


@STYLES
def test_padding_and_other_sequences_change_nothing(style):
    model, variables = _made("previous" if style else "causal", num_classes=5)
    head = variables["params"]["head"]["kernel"]
    assert head.shape == (D, 5)
    apply = jax.jit(model.apply)
    mask = jnp.arange(N)[None] < jnp.array([[2], [6], [4]])
    logits, _ = apply(variables, _tokens(), token_mask=mask)
    other = jnp.where(mask, _tokens(), 7)
    np.testing.assert_array_equal(apply(variables, other, token_mask=mask)[0], logits)
    alone, _ = apply(variables, _tokens()[:1, :2])  # the head sees the last real token
    np.testing.assert_allclose(alone[0], logits[0], rtol=1e-5, atol=1e-5)
    sequences = jnp.array([True, False, True])
    found = [apply(variables, _tokens().at[1].set(word), sequence_mask=sequences)[0][::2] for word in (0, 9)]
    np.testing.assert_array_equal(*found)


def test_a_classifier_that_looks_both_ways_does_not_see_padding():
    model, variables = _made("causal", num_classes=5, causal=False)
    mask = jnp.arange(N)[None] < jnp.array([[2], [6], [4]])
    apply = jax.jit(model.apply)
    logits, _ = apply(variables, _tokens(), token_mask=mask)
    np.testing.assert_array_equal(apply(variables, jnp.where(mask, _tokens(), 7), token_mask=mask)[0], logits)
    np.testing.assert_allclose(apply(variables, _tokens()[:1, :2])[0][0], logits[0], rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ head and sizes


def _published(size: str, **overrides: Any) -> models.Model:
    sizes = {
        "medium": {"num_layers": 6, "hidden_size": 352, "mlp_size": 352, "attention_span": 1024},
        "large": {"num_layers": 12, "hidden_size": 512, "mlp_size": 512, "attention_span": 2048, "num_tokens": 1024},
    }
    moe = {"layers": "every1", "num_experts": 16, **overrides}
    router = {**ROUTER, "select": "top_experts"}
    common = {"inputs": "tokens", "num_heads": 8, "vocabulary_size": 267_735, "moe": moe, "router": router}
    return models.from_config(PREVIOUS | sizes[size] | common)


@pytest.mark.parametrize(
    ("size", "layers", "millions"),
    [("medium", "every1", 215.68), ("large", "every1", 388.15), ("medium", "every2", 204.48)],
    ids=["medium", "large", "glam"],
)
def test_parameter_counts_of_the_papers(size, layers, millions):
    """Their programs make one LayerNorm of each block that is never used: 2 D numbers that ours has not.

    GLaM is that of the paper, with experts in every second block. Their 201 M come from a mistake in an index.
    """
    model = _published(size, layers=layers)
    shapes = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    unused = model.config.num_layers * 2 * model.config.hidden_size
    assert round((models.num_parameters(shapes["params"]) + unused) / 1e6, 2) == millions


def test_the_logits_are_dead_code_where_only_losses_are_used():
    """Their 8 x 64 x 50,000 float32 numbers would take 102 MB."""
    model = models.from_config(_config(vocabulary_size=50_000, num_tokens=64))
    variables = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((8, 64), jnp.int32)

    def losses(variables, tokens):
        return token_losses(model.apply(variables, tokens)[1]["head"], tokens, 16)

    def logits(variables, tokens):
        return model.apply(variables, tokens)[0]

    chunked, whole = (costs.of(jax.jit(f).lower(variables, tokens).compile()) for f in (losses, logits))
    assert whole.output_bytes == 4 * 8 * 64 * 50_000
    assert chunked.temp_bytes + chunked.output_bytes < 0.1 * whole.output_bytes


def test_experts_cost_few_operations_more_than_a_dense_model_of_equal_work():
    """A training step with 2 of 8 experts over one with MLPs of twice the width, as compiled."""

    def flops(layers: str, mlp_size: int) -> float:
        moe = {"layers": layers, "num_experts": 8, "num_selected_experts": 2}
        sizes = {"hidden_size": 256, "mlp_size": mlp_size, "num_heads": 4, "num_layers": 1, "vocabulary_size": 1000}
        model = models.from_config(_config(**sizes, num_tokens=64, moe=moe))
        params = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0))["params"])

        def loss(params, tokens):
            return mean_loss(model.apply({"params": params}, tokens, train=True)[1]["head"], tokens, 256)[0]

        tokens = jax.ShapeDtypeStruct((16, 64), jnp.int32)
        found = costs.of(jax.jit(jax.grad(loss)).lower(params, tokens).compile())
        assert found.unknown_loops == 0
        return found.flops

    assert 1.0 < flops("every1", 256) / flops("none", 512) < 1.15


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_gives_the_logits(tied):
    model, variables = _made("causal", tie_embeddings=tied)
    assert ("kernel" in variables["params"]["vocabulary"]) == (not tied)
    logits, aux = jax.jit(model.apply)(variables, _tokens())
    assert logits.shape == (3, N, V)
    head = aux["head"]
    np.testing.assert_allclose(head.hidden @ head.kernel + head.bias[None, None], logits, rtol=1e-5, atol=1e-5)
    expected = -jnp.take_along_axis(jax.nn.log_softmax(logits), _tokens(1)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(token_losses(head, _tokens(1), 4), expected, rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------------------------------- meshes, types, bad input


def _loss(model, params, tokens):
    outputs = model.apply({"params": gathered(params)}, tokens)[1]
    return mean_loss(outputs["head"], (tokens + 1) % V, 5)[0] + outputs["auxiliary_loss"]


@STYLES
def test_a_mesh_changes_neither_loss_nor_gradients(style):
    """23 words over 2 x 2 devices; embeddings and head are cut along the width, experts over two devices."""
    model, variables = _made("previous" if style else "causal", tie_embeddings=not style)
    tokens = _tokens(batch=8)
    function = jax.jit(jax.value_and_grad(functools.partial(_loss, model)))
    expected = function(variables["params"], tokens)
    mesh = make_mesh(2, 2, fsdp=2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(variables, tree_shardings(variables, mesh))["params"]
        assert placed["vocabulary"]["embedding"].addressable_shards[0].data.shape == (V, D // 4)
        found = function(placed, tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@STYLES
def test_bfloat16_and_remat(style):
    name = "previous" if style else "causal"
    model, variables = _made(name)
    full, _ = _made(name, remat="full")
    functions = [jax.jit(jax.grad(functools.partial(_loss, one))) for one in (model, full)]
    gradients = [function(variables["params"], _tokens()) for function in functions]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *gradients)
    rounded = models.from_config(_config(dtype="bfloat16", **style))
    logits, aux = jax.jit(rounded.apply)(variables, _tokens())
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(aux["memory"])} <= {jnp.dtype("bfloat16")}
    plain = jax.jit(model.apply)(variables, _tokens())[0]
    np.testing.assert_allclose(logits, plain, atol=0.1 * float(jnp.std(plain)) + 0.05)


def test_bad_tokens_are_one_line(shapes_unchecked):
    model, variables = _made("causal")
    with pytest.raises(
        ValueError, match=r"tokens: expected integers \[B, N\] with N at most model.num_tokens = 6; rec"
    ):
        model.apply(variables, _tokens(length=N + 1))
    with pytest.raises(ValueError, match=r"received 'float32\[3, 6\]'"):
        model.apply(variables, jnp.zeros((3, N)))
    # Nothing is clamped: what is not in the vocabulary is not a number.
    assert np.isnan(jax.jit(model.apply)(variables, jnp.full((1, N), V, jnp.int32))[0]).all()
