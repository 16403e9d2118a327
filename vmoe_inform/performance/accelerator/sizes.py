"""Sizes of what is checked: those of S/16 on an accelerator, and tiny ones on a CPU."""

import dataclasses

from vmoe_inform import config as config_lib
from vmoe_inform.config import Config, presets


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of arrays and runs; letters as in :mod:`vmoe_inform.axes`.

    Attributes:
      images, tokens, width, mlp, heads, experts, capacity: B, N, D, M, H, E and C of the fast paths.
      words: of the vocabulary of the cross-entropy.
      variant, image_size_px: of the model that is trained.
      batch_size: of training; halved until it fits the memory.
      warm_up_steps: that are not timed.
      rounds, steps_of_round: timed steps; a round is one measurement.
    """

    images: int
    tokens: int
    width: int
    mlp: int
    heads: int
    experts: int
    capacity: int
    words: int
    variant: str
    image_size_px: int
    batch_size: int
    warm_up_steps: int
    rounds: int
    steps_of_round: int

    def config(self, router: str = "vmoe", *, dispatch: str = "auto", attention: str = "auto") -> Config:
        """The run whose step is timed, bfloat16; no data set is read."""
        config = presets.start(None, router=router, variant=self.variant, experts=str(self.experts), where="last2")
        config.model.image_size_px = self.image_size_px
        config.model.dtype = "bfloat16"
        config.model.moe.dispatch = dispatch
        config.model.attention = attention
        config.train.batch_size = self.batch_size
        config.train.steps = self.warm_up_steps + self.rounds * self.steps_of_round
        return config_lib.parse(config)

    def with_batch(self, images: int) -> "Sizes":
        """The same with another batch of training."""
        return dataclasses.replace(self, batch_size=images)


FULL = Sizes(
    images=8,
    tokens=197,
    width=512,
    mlp=2048,
    heads=8,
    experts=8,
    capacity=48,  # 197 tokens choose 2 of 8 experts, 49 each on average: some are dropped
    words=32_000,
    variant="S/16",
    image_size_px=224,
    batch_size=128,
    warm_up_steps=5,
    rounds=9,
    steps_of_round=5,
)
SMALL = Sizes(
    images=2,
    tokens=9,
    width=16,
    mlp=24,
    heads=2,
    experts=4,
    capacity=4,
    words=19,
    variant="Ti/16",
    image_size_px=32,
    batch_size=4,
    warm_up_steps=2,
    rounds=2,
    steps_of_round=2,
)
