"""An image's logits are the same for every batch size and number of processes and devices, with dropped tokens too."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.data.images.pipeline import evaluation_batches
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.nn import models
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.tasks.classification import Classification

from .. import tiny

COUNT = 27  # in groups of four, the last of which is not full
BROKEN = (5,)
# batch size, processes, devices: the first is what the others are compared with
FIRST, *OTHERS = ((8, 1, 1), (8, 2, 1), (32, 4, 4), (48, 3, 2))


@dataclasses.dataclass(frozen=True)
class Images:
    """Noise; one file that is no image."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        return {"image": b"broken" if index in BROKEN else image, "label": index % 10}

    def name(self, index):
        return str(index)


SOURCE = Source(Images(), tuple("0123456789"))


def config_of(router, batch_size=8):
    """Groups of four, and slots for half of their tokens."""
    return config_lib.parse(
        tiny.config_dict(
            router,
            model__moe__group_size_sequences=4,
            model__moe__capacity_factor_evaluation=0.5,
            evaluation__batch_size=batch_size,
            train__batch_size=96,
            data__max_skipped_share=1.0,
        )
    )


@functools.cache
def variables_of(router):
    variables = tiny.variables(models.from_config(config_of(router).model))
    router_parameters = variables["params"]["block_1"]["moe"]["router"]
    (name,) = router_parameters  # of the score step
    router_parameters[name] = jax.tree.map(
        lambda kernel: kernel.at[:, 0].add(0.5), router_parameters[name]
    )  # unbalanced
    return variables


class Simulated(Classification):
    """All of ``count`` processes in this one: the batch of each is read by itself, as its process would."""

    def __init__(self, config, count):
        super().__init__(config)
        self._count = count

    def evaluation_batches(self, source, skipped, process_index, process_count):
        size = self.config.model.image_size_px
        batch_size = self.config.evaluation.batch_size // self._count
        read = functools.partial(evaluation_batches, source, image_size_px=size, batch_size=batch_size, skipped=skipped)
        parts = [read(process_index=index, process_count=self._count) for index in range(self._count)]
        for batches in zip(*parts, strict=True):
            yield {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@functools.cache
def found(router, layout):
    batch_size, count, devices = layout
    config = config_of(router, batch_size)
    mesh = make_mesh(devices, 1, jax.devices()[:devices])
    predictor = Predictor(models.from_config(config.model), Simulated(config, count), mesh)
    return predictor.predict_with_routing(variables_of(router), SOURCE)


@pytest.mark.parametrize("router", ["vmoe", "expert_choice"])
@pytest.mark.parametrize("layout", OTHERS, ids=str)
def test_predictions(layout, router):
    ours, routing, chosen = found(router, layout)
    theirs, routing_of_first, chosen_by_first = found(router, FIRST)
    assert router != "vmoe" or routing["block_1"].dropped > 0.2  # or nothing is shown here
    np.testing.assert_array_equal(ours.indices, np.delete(np.arange(COUNT), BROKEN))
    np.testing.assert_array_equal(chosen["block_1"], chosen_by_first["block_1"])
    assert routing["block_1"].dropped == routing_of_first["block_1"].dropped
    first = chosen["block_1"][..., 0]
    assert routing["block_1"].collapsed == np.mean([len(set(of_image)) == 1 for of_image in first.tolist()])
    assert (routing["block_1"].margin is None) == (router == "expert_choice")  # where no token chooses
    # With other shapes on a device, its matrix products round otherwise.
    same_shapes = layout[0] // layout[2] == FIRST[0] // FIRST[2]
    np.testing.assert_allclose(ours.logits, theirs.logits, rtol=0, atol=0 if same_shapes else 2e-6)
