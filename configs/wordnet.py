"""The glosses of WordNet, 2.1 million words of definitions and examples that come with the package: a language model.

    python -m vmoe_inform.train --config=configs/wordnet.py:router=similarity_smoe_top2 --workdir=runs/wordnet

Argument: router=NAME, size=tiny|small|medium|large, top=NUMBER, experts=NUMBER, where=lastN|everyN|INDEX+INDEX.
Hardware: 2 CPU cores. Time: 3 min 53 s in all, compilation and evaluation included.
Test perplexity: 94.2 [91.2, 97.3] (smoe_top2, seed 0). Counts have 428 (unigrams), 125 (bigrams) and 89 (trigrams).
"""

import ml_collections

from vmoe_inform.config import presets


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """A model of words with experts in every block."""
    options = {"distilled.switch_step": 140}  # StableMoE: a tenth of the run, as in its paper
    config = presets.start_language(argument, router="smoe_top2", size="small", experts="8", options=options)
    config.model.vocabulary_size = 13_400
    config.model.tie_embeddings = True

    config.data.source = "wordnet"

    config.train.steps = 1_400
    config.train.batch_size = 16
    config.train.log_every_steps = 50

    config.optimizer.learning_rate = 3e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 60
    config.optimizer.weight_decay = 1e-2
    config.optimizer.gradient_clip_norm = 1.0

    config.evaluation.batch_size = 32
    return config
