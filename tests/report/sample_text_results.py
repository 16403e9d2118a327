"""Invented results of language models: two of a paper's models of WikiText-103, and a classifier of texts."""

import numpy as np

from vmoe_inform.evaluation.results import (
    CleanData,
    LayerRouting,
    ModelFacts,
    Results,
    RouterFacts,
    Scale,
    SuiteResult,
    SwapCurve,
)

PERPLEXITY = Scale("perplexity", less_is_better=True)


def _run(test, attacked, inform=(), **facts):
    """A model of Table 1 with these perplexities; validation text is 1 easier."""
    shares = (0.0, 0.015, 0.05, 0.1)
    curve = SwapCurve(shares, (0.0, 0.02, 0.05, 0.1), (test, attacked, attacked + 10, attacked + 25))
    inputs = SwapCurve(shares, (0.0, 0.02, 0.05, 0.1), (test, test + 1, test + 3, test + 6))
    text = {"headline": "perplexity", "scale": PERPLEXITY, "counted": "words", "streams": 48, "origin": "WikiText"}
    return Results(
        checkpoint_step=60_000,
        config_hash="0123456789abcdef",
        model=ModelFacts(
            parameters=215_684_264,
            router=RouterFacts("linear", inform),
            experts=16,
            experts_per_token=2,
            num_layers=6,
            hidden_size=352,
            moe_layers=tuple(range(6)),
            inputs="tokens",
            vocabulary_size=267_735,
            num_tokens=512,
            block="post_ln_double",
            attention_style="previous",
            attention_span=1024,
            **facts,
        ),
        suites={
            "perplexity": SuiteResult(
                count=245_569,
                metrics={"perplexity": test, "validation_perplexity": test - 1, "nll": float(np.log(test))}
                | {"unigram": 1400.0, "bigram": 380.5, "trigram": 210.25},
                standard_errors={"perplexity": 0.3, "validation_perplexity": 0.3},
                **text,
            ),
            "word_swap": SuiteResult(
                count=245_569,
                metrics={
                    "perplexity": attacked,
                    "inputs_perplexity": test + 1,
                    "validation_perplexity": attacked - 1,
                },
                standard_errors={"perplexity": 0.4, "inputs_perplexity": 0.4, "validation_perplexity": 0.4},
                swapped={"text": curve, "inputs": inputs, "validation_text": curve, "validation_inputs": inputs},
                seed=0,
                **text,
            ),
        },
        routing={f"block_{n}": LayerRouting(1.0 + 0.1 * n, (1 / 16,) * 16, 4.0, 0.0) for n in range(6)},
        seed=0,
        data=CleanData("wikitext", place="WikiText in /data", fingerprint="aa"),
    )


def language_results():
    """A plain run, and an informed one whose router looks ahead."""
    return {
        "smoe_top2": _run(35.0, 44.0),
        "similarity_smoe_top2": _run(32.0, 40.0, ("similarity",), allow_future=True),
    }


def passages():
    """Two windows of a corpus, one that ends early."""
    tokens = ["the", "router", "<script>alert(1)</script>", "", ""], ["a", "word", "of", "each", "expert"]
    return [
        {
            "token": np.array(words),
            "nats": np.linspace(0.0, 12.0, 5),
            "experts": {"block_0": np.arange(5), "block_3": np.arange(5)[::-1], "block_5": np.full(5, 16)},
        }
        for words in tokens
    ]
