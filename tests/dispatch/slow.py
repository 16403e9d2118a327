"""Plans carried out by loops in float64: every expert on every row, with the gradients written out.

Experts are tanh(row @ kernel + bias), so that the output of an empty row is not zero and would show if it leaked.
Each function returns outputs and the gradients of sum(outputs * cotangent).
"""

import numpy as np


def _expert(parameters, e, row):
    return np.tanh(row @ parameters["kernel"][e] + parameters["bias"][e])


def _expert_backward(parameters, gradients, e, row, cotangent):
    """Adds to the gradients of the expert, and returns that of its row."""
    inner = cotangent * (1 - _expert(parameters, e, row) ** 2)
    gradients["kernel"][e] += np.outer(row, inner)
    gradients["bias"][e] += inner
    return parameters["kernel"][e] @ inner


def _zeros_like(tree):
    return {name: _zeros_like(a) if isinstance(a, dict) else np.zeros_like(a) for name, a in tree.items()}


def slots(inputs, chosen, filled, cotangent):
    """inputs: tokens [G, S, D], slot_weights [G, E, C], parameters; chosen and filled [G, E, C]."""
    tokens, parameters = inputs["tokens"], inputs["parameters"]
    outputs, gradients = np.zeros_like(tokens), _zeros_like(inputs)
    for g, s, e in np.ndindex(*tokens.shape[:2], chosen.shape[1]):
        row, output = tokens[g, s], _expert(parameters, e, tokens[g, s])
        mine = [c for c in range(chosen.shape[2]) if filled[g, e, c] and chosen[g, e, c] == s]
        weight = sum(inputs["slot_weights"][g, e, c] for c in mine)
        outputs[g, s] += weight * output
        gradients["tokens"][g, s] += _expert_backward(
            parameters, gradients["parameters"], e, row, weight * cotangent[g, s]
        )
        for c in mine:
            gradients["slot_weights"][g, e, c] += cotangent[g, s] @ output
    return outputs, gradients


def soft(inputs, cotangent):
    """inputs: tokens [B, N, D], into and out_of [B, N, E, P], parameters."""
    tokens, into, out_of, parameters = (inputs[name] for name in ("tokens", "into", "out_of", "parameters"))
    outputs, gradients = np.zeros_like(tokens), _zeros_like(inputs)
    images, num_tokens, num_experts, num_slots = into.shape
    for b, e, p in np.ndindex(images, num_experts, num_slots):
        row = sum(into[b, n, e, p] * tokens[b, n] for n in range(num_tokens))
        output = _expert(parameters, e, row)
        heard = sum(out_of[b, n, e, p] * cotangent[b, n] for n in range(num_tokens))
        to_row = _expert_backward(parameters, gradients["parameters"], e, row, heard)
        for n in range(num_tokens):
            outputs[b, n] += out_of[b, n, e, p] * output
            gradients["out_of"][b, n, e, p] = cotangent[b, n] @ output
            gradients["into"][b, n, e, p] = to_row @ tokens[b, n]
            gradients["tokens"][b, n] += into[b, n, e, p] * to_row
    return outputs, gradients
