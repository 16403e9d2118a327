r"""WikiText-103 by words, as Mutual-Inform SMoE and SymphonySMoE train on it: each row of their tables.

Argument: router=NAME, size=medium|large|small|tiny, top=NUMBER, experts=NUMBER, where=lastN|everyN|INDEX+INDEX.
Data: wiki.{train,valid,test}.tokens in --config.data.directory=DIR, or parquet files with the same lines; docs/data.md.

    python -m vmoe_inform.data.check --config=configs/wikitext103.py --config.data.directory=DIR
    python -m vmoe_inform.train --config=configs/wikitext103.py:router=similarity_smoe_top2 --workdir=runs/wikitext103 \
        --config.data.directory=DIR
    python -m vmoe_inform.evaluate --workdir=runs/wikitext103 --suites=all

Rows of Mutual-Inform SMoE; STEP is nothing, similarity_ or attention_, and symphony_ for SymphonySMoE. With _literal
at the end of the name attention has their sigma, 1:

    Table 1        router=STEPsmoe_top1, router=STEPsmoe_top2, router=STEPglam
    Table 3        router=STEPsmoe_top2, router=STEPxmoe, router=STEPsmoe_dropout
    Table 4        configs/text_classification.py, from these runs
    Table 5        size=large,router=STEPsmoe_top2
    Table 6        router=STEPsmoe_topK with K = 1, 2 and 8; experts=32,router=STEPsmoe_top2
    Table 8        router=similarity_smoe_top2@similarity.temperature=T, router=attention_smoe_top2@attention.sigma=T
                   with T = 0.1, 1, 2 and sqrt_dim

The papers' sums over tokens look ahead. Here none does, but with --config.model.allow_future=True, which results state.

Millions of parameters:

    medium SMoE         215.68, with K = 1, 2 and 8 alike; 239.57 with 32 experts
    large SMoE          388.14
    X-MoE, SMoE-dropout 215.66, 215.64
    GLaM                204.47; the papers state 201, which an indexing mistake of their program gives

Hardware, expected: four TPU v5e of 16 GiB. A train step takes all 24,576 tokens at once, in float32. The compiler
estimates cycles without gathers and sorts:

    medium SMoE          6.8 GiB    413.7 million cycles; K = 1 and 8 are within 0.4 %
    medium, symphony_    6.8 GiB    413.8 million cycles
    medium, similarity_  7.0 GiB    418.1 million cycles
    medium, attention_   9.6 GiB    469.4 million cycles; K = 1 and 8, X-MoE (9.9 GiB) and SMoE-dropout within 0.5 %
    medium, 32 experts  10.4 GiB    557.6 million cycles
    X-MoE                6.8 GiB    413.9 million cycles
    SMoE-dropout         6.7 GiB    413.5 million cycles
    GLaM                 5.5 GiB    356.1 million cycles
    GLaM, attention_     6.4 GiB    383.8 million cycles
    large SMoE          15.8 GiB  2,104.7 million cycles; it hardly fits
    large, symphony_    15.8 GiB  2,104.7 million cycles
    large, similarity_  does not fit, by 21 MiB
    large, attention_   does not fit: 18.7 GiB of temporaries; on eight chips by 28 MiB

    python -m vmoe_inform.compile_check --config=configs/wikitext103.py:size=large --topology=v5e:2x2

Time and score: not yet run.
"""

import ml_collections

from vmoe_inform.config import presets


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """The numbers of the papers' programs, with four differences.

    A router with K = 1 weighs the chosen expert by its probability; literally it would be 1, and the router would not
    learn (``router=smoe_top1@top_experts.renormalize=one``). Perplexity is of all words, none is left out at the end.
    Attention-informed routers choose among heads by what is known. GLaM's dense blocks have no dropout.
    """
    options = {
        # The balance loss of the programs has no effect, and in SMoE-dropout K does not grow.
        "gshard.weight": 0.0,
        "switch.weight": 0.0,
        "frozen.k_start": None,
        "distilled.switch_step": 6_000,  # StableMoE: a tenth of the run, as in its paper
    }
    config = presets.start_language(argument, router="smoe_top2", size="medium", experts="16", options=options)
    presets.set_papers_trunk(config)
    large = config.model.num_layers == presets.LANGUAGE_SIZES["large"][0]
    every_second = config.model.moe.layers == "every2"  # GLaM
    config.model.vocabulary_size = 267_735

    config.data.source = "wikitext"

    config.train.batch_size = 24 if large else 48
    config.train.steps = 80_000 if every_second else 60_000  # "epochs" of 1,000 batches
    config.train.log_every_steps = 200
    config.checkpoint.every_steps = 1_000

    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 7e-5 if every_second else 7e-4
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 5_000 if large else 4_000

    config.evaluation.every_steps = 5_000
    config.evaluation.batch_size = config.train.batch_size
    return config
