"""The formulas of routing as float64 loops over one image: slow, obvious, and written without the package."""

import itertools
import math
from collections.abc import Callable

import numpy as np


def softmax(row):
    shifted = np.exp(np.asarray(row, np.float64) - max(row))
    return shifted / shifted.sum()


def entropy(row):
    row = np.asarray(row, np.float64) / np.sum(row)
    return -sum(p * math.log(p) for p in row if p > 0)


def linear_scores(tokens, kernel, bias):
    logits = np.zeros((len(tokens), kernel.shape[1]))
    for n, e in np.ndindex(logits.shape):
        logits[n, e] = sum(tokens[n, d] * kernel[d, e] for d in range(len(kernel))) + bias[e]
    return logits


def cosine_scores(tokens, projection, expert_embeddings, temperature):
    logits = np.zeros((len(tokens), len(expert_embeddings)))
    for n, e in np.ndindex(logits.shape):
        u, v = tokens[n] @ projection, expert_embeddings[e]
        logits[n, e] = u @ v / (np.linalg.norm(u) * np.linalg.norm(v)) / temperature
    return logits


def token_similarity(tokens, weight, temperature=1.0, metric="dot", mask=None):
    if metric == "cosine":
        tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    graph = np.zeros((len(tokens), len(tokens)))
    for i in range(len(tokens)):
        heard = [j for j in range(len(tokens)) if mask is None or mask[i, j]] or [i]
        graph[i, heard] = softmax([tokens[i] @ weight @ tokens[j] / temperature for j in heard])
    return graph


def attention(queries, keys, mask=None):
    heads, size, width = queries.shape
    result = np.zeros((heads, size, size))
    for h, i in np.ndindex(heads, size):
        heard = [j for j in range(size) if mask is None or mask[i, j]] or [i]
        result[h, i, heard] = softmax([queries[h, i] @ keys[h, j] / math.sqrt(width) for j in heard])
    return result


def _scaled(vectors, normalize):
    if normalize == "none":
        return vectors
    length = {"unit": 1.0, "sqrt_dim": math.sqrt(vectors.shape[-1])}[normalize]
    return length * vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _log_densities(means, outputs, sigma, normalize="none", center=False, mask=None):
    """log N(u_i | m_hj, sigma^2 I) up to a constant [N, H, N], centered for each key over what token i knows."""
    sigma = math.sqrt(outputs.shape[-1]) if sigma == "sqrt_dim" else sigma
    means, outputs = _scaled(means, normalize), _scaled(outputs, normalize)
    densities = np.array([-((output - means) ** 2).sum(-1) / (2 * sigma**2) for output in outputs])
    if not center:
        return densities
    size = len(outputs)
    known = [[j for j in range(size) if mask is None or mask[i, j]] or [i] for i in range(size)]
    return np.array([densities[i] - densities[known[i]].mean(0) for i in range(size)])


def _joint(attention, means, outputs, sigma, **options):
    """A_h[i,j] N(u_i | m_hj, sigma^2 I) up to a factor of each i, straight from the density."""
    joint = np.zeros(attention.shape)
    for i, exponents in enumerate(_log_densities(means, outputs, sigma, **options)):
        joint[:, i] = attention[:, i] * np.exp(exponents - exponents[attention[:, i] > 0].max())
    return joint


def attention_posterior(attention, means, outputs, sigma=1.0, **options):
    # One head at a time, so that no head's density vanishes next to another's.
    joint = np.concatenate(
        [_joint(attention[h : h + 1], means[h : h + 1], outputs, sigma, **options) for h in range(len(attention))]
    )
    return joint / joint.sum(-1, keepdims=True)


def head_posterior(attention, means, outputs, sigma=1.0, **options):
    evidence = _joint(attention, means, outputs, sigma, **options).sum(-1).T  # [N, H]; the uniform prior 1/H cancels
    return evidence / evidence.sum(-1, keepdims=True)


def lowest_entropy_head(attention):
    return np.argmin([np.mean([entropy(row) for row in head]) for head in attention])


def inform(probabilities, graph):
    informed = np.zeros(probabilities.shape)
    for i, j in np.ndindex(graph.shape):
        informed[i] += graph[i, j] * probabilities[j]
    return informed


def _responsibilities(queries, keys, means, outputs, sigma, heads, mask, **options):
    """H'[i,h] A'_h[i,j], as [H, N, N]."""
    prior, size = attention(queries, keys, mask), len(outputs)
    options = {"mask": mask, **options}
    posterior = attention_posterior(prior, means, outputs, sigma, **options)
    if heads == "posterior":
        return head_posterior(prior, means, outputs, sigma, **options).T[..., None] * posterior
    shares = np.zeros((len(prior), size, 1))
    for i in range(size):
        known = [j for j in range(size) if mask is None or mask[i, j]] or [i]
        shares[lowest_entropy_head(prior[:, known]), i] = 1.0
    return shares * posterior


def attention_informed(
    probabilities, queries, keys, means, outputs, sigma=1.0, heads="lowest_entropy", mask=None, **options
):
    weights = _responsibilities(queries, keys, means, outputs, sigma, heads, mask, **options)
    return inform(probabilities, weights.sum(0))


def posterior_distances(queries, keys, means, outputs, sigma=1.0, heads="lowest_entropy", mask=None, **options):
    weights = _responsibilities(queries, keys, means, outputs, sigma, heads, mask, **options)
    normalize = options.get("normalize", "none")
    means, outputs = _scaled(means, normalize), _scaled(outputs, normalize)
    distances = [np.sum(weights[:, i] * ((outputs[i] - means) ** 2).sum(-1)) for i in range(len(outputs))]
    return np.array(distances) / outputs.shape[-1]


def coselection_counts(indices, num_experts, diagonal=True):
    counts = np.zeros((num_experts, num_experts))
    for chosen in indices.reshape(-1, indices.shape[-1]):
        for j, k in itertools.product(chosen, chosen):
            counts[j, k] += diagonal or j != k
    return counts


def normalize_rows(counts):
    return np.array([row / row.sum() if row.sum() > 0 else row for row in np.asarray(counts, np.float64)])


def expert_informed(probabilities, adjacency):
    informed = np.array(probabilities, np.float64)
    for n, j in np.ndindex(informed.shape):
        if adjacency[j].any():
            informed[n, j] = sum(adjacency[j, k] * probabilities[n, k] for k in range(len(adjacency)))
    return informed


def symmetric(counts):
    counts = np.asarray(counts, np.float64)
    found = np.zeros_like(counts)
    for j, k in np.ndindex(counts.shape):
        if counts[j, k]:
            found[j, k] = counts[j, k] / np.sqrt(counts[j].sum() * counts[:, k].sum())
    return found


def symphony(choices, num_experts, *, decay, normalization, every, warmup, alpha):
    """Before each training step and after the last one: the matrix that Symphony multiplies probabilities with.

    Args:
      choices: experts of the tokens of each step [steps, N, K].
      every: steps between two updates.
      warmup: steps without the matrix.
      alpha: share of the identity.
    """
    normalized = {"row": normalize_rows, "symmetric": symmetric}[normalization]
    adjacency, pending, found = np.zeros((num_experts, num_experts)), [], []
    for done in range(len(choices) + 1):
        matrix = np.eye(num_experts)
        if done >= warmup:
            for j in range(num_experts):
                if adjacency[j].any():
                    matrix[j] = alpha * matrix[j] + (1 - alpha) * adjacency[j]
        found.append(matrix)
        if done == len(choices):
            return found
        pending.append(coselection_counts(choices[done], num_experts))
        if len(pending) == every:
            new = normalized(sum(pending))
            replaces = every > 1 and done + 1 == every
            adjacency = new if replaces else decay * adjacency + (1 - decay) * new
            pending = []


def update_oja(adjacency, counts, decay):
    updated = np.array(adjacency)
    mean = np.trace(counts) / len(counts)
    for j in range(len(counts)):
        if counts[j, j] > 0:
            kept = decay ** (counts[j, j] / mean)
            updated[j] = kept * adjacency[j] + (1 - kept) * counts[j] / counts[j].sum()
    return updated


def transition_counts(before, after, num_experts):
    counts = np.zeros((num_experts, num_experts))
    pairs = zip(before.reshape(-1, before.shape[-1]), after.reshape(-1, after.shape[-1]), strict=True)
    for first, second in pairs:
        for j, k in itertools.product(first, second):
            counts[j, k] += 1
    return counts


def transition_informed(probabilities, previous, adjacency, share):
    informed = np.zeros(probabilities.shape)
    for i in range(len(probabilities)):
        suggested = sum(previous[i, j] * adjacency[j] for j in range(len(adjacency)))
        informed[i] = (1 - share * suggested.sum()) * probabilities[i] + share * suggested
    return informed


def soft_slot_scores(tokens, slots, scale):
    logits = np.zeros((len(tokens), *slots.shape[:2]))
    for n, e, p in np.ndindex(logits.shape):
        u, v = tokens[n], slots[e, p]
        logits[n, e, p] = scale * u @ v / (np.linalg.norm(u) * np.linalg.norm(v))
    return logits


def light_scores(patches, embedding, position, centroids):
    logits = np.zeros((len(patches), len(centroids)))
    for n, e in np.ndindex(logits.shape):
        logits[n, e] = np.tanh(patches[n] @ embedding + position[n]) @ centroids[e]
    return logits


def expert_choice(probabilities, capacity):
    tokens = np.array([sorted(range(len(column)), key=lambda i: -column[i])[:capacity] for column in probabilities.T])
    return np.take_along_axis(probabilities.T, tokens, axis=1), tokens


def balance_loss(logits, indices):
    size, experts = logits.shape
    loss, mean = 0.0, indices.size / experts
    for e in range(experts):
        mine = [i for i in range(size) if e in indices[i]]
        loss += (len(mine) - mean) / mean * sum(1 / (1 + math.exp(-logits[i, e])) for i in mine)
    return loss / size


def top_experts(probabilities, k, renormalize=True):
    indices = np.array([sorted(range(len(row)), key=lambda e: -row[e])[:k] for row in probabilities])
    weights = np.array([row[chosen] for row, chosen in zip(probabilities, indices, strict=True)])
    return (weights / weights.sum(-1, keepdims=True) if renormalize else weights), indices


def biased_top_experts(probabilities, bias, k):
    indices = top_experts(probabilities + bias, k)[1]
    weights = np.array([row[chosen] for row, chosen in zip(probabilities, indices, strict=True)])
    return weights / weights.sum(-1, keepdims=True), indices


def positive_experts(probabilities, most):
    weights, indices = top_experts(probabilities, most, renormalize=False)
    return weights, np.where(weights > 0, indices, probabilities.shape[1])


def sparsity_loss(probabilities, k):
    size, experts = probabilities.shape
    loads = [experts / (k * size) * sum(row[e] > 0 for row in probabilities) for e in range(experts)]
    return sum(loads[e] * row[e] for row in probabilities for e in range(experts)) / size


def cluster_weights(deviations, limit):
    inverse = 1 / (deviations + 1e-4)
    return np.minimum(inverse, limit * inverse.mean()) / inverse.mean()


def eigenbasis_scores(tokens, basis, gains, masks, bias, temperature):
    orthonormal = np.linalg.qr(basis)[0]
    scores = np.zeros((len(tokens), len(masks)))
    for i, e in np.ndindex(scores.shape):
        energies = (tokens[i] @ orthonormal) ** 2
        shares = [np.exp(masks[e, r]) / np.exp(masks[:, r]).sum() for r in range(len(gains))]
        scores[i, e] = (energies / energies.sum() * gains * shares).sum() + bias[e]
    return scores / temperature


def squared_variation(values):
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values) / mean**2


def load_loss(logits, noisy_logits, noise_std, k):
    chances = np.zeros(logits.shape)
    for i, e in np.ndindex(logits.shape):
        threshold = sorted(noisy_logits[i])[-k]
        chances[i, e] = 0.5 * math.erfc((threshold - logits[i, e]) / noise_std / math.sqrt(2))
    return squared_variation(chances.mean(0))


def switch_loss(probabilities, indices):
    size, experts = probabilities.shape
    return experts * sum(np.mean(indices == e) * probabilities[:, e].sum() / size for e in range(experts))


def gshard_loss(probabilities):
    size, experts = probabilities.shape
    first = [max(range(experts), key=lambda e: row[e]) for row in probabilities]
    products = [first.count(e) / size * probabilities[:, e].mean() for e in range(experts)]
    return experts**2 * sum(products) / experts


def router_z_loss(logits):
    return np.mean([math.log(sum(math.exp(x) for x in row)) ** 2 for row in logits])


def topk_margin(probabilities, k):
    ordered = np.sort(probabilities, axis=-1)[:, ::-1]
    return ordered[:, k - 1] - ordered[:, k]


def fluctuation_rate(before, after):
    pairs = zip(before.reshape(-1, before.shape[-1]), after.reshape(-1, after.shape[-1]), strict=True)
    return np.mean([set(a) != set(b) for a, b in pairs])


def difference_norm(adjacency):
    centre = np.eye(len(adjacency)) - 1 / len(adjacency)
    return np.sqrt(np.linalg.eigvalsh(centre @ adjacency.T @ centre @ adjacency @ centre)[-1])


def radii(probabilities, adjacency, k):
    """Of each token by the margin, and by pairs of experts."""
    informed, rho = expert_informed(probabilities, adjacency), difference_norm(adjacency)
    found = []
    for row in informed:
        order = np.argsort(-row, kind="stable")
        pairs = []
        for chosen, other in itertools.product(order[:k], order[k:]):
            apart = adjacency[chosen] - adjacency[other]
            pairs.append((row[chosen] - row[other]) / np.linalg.norm(apart - apart.mean()))
        found.append(((row[order[k - 1]] - row[order[k]]) / (2 * rho), min(pairs)))
    return np.array(found)


def gradient(function: Callable, arguments: list[np.ndarray], which: int, cotangent: np.ndarray) -> np.ndarray:
    """Central differences of sum(cotangent * function) with respect to one argument."""
    step = 1e-5
    result = np.zeros(arguments[which].shape)
    for place in np.ndindex(result.shape):
        values = []
        for sign in (1, -1):
            moved = [np.array(a) for a in arguments]
            moved[which][place] += sign * step
            values.append(np.sum(cotangent * function(*moved)))
        result[place] = (values[0] - values[1]) / (2 * step)
    return result
