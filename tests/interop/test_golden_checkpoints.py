"""Our models compute what the programs compute that wrote the checkpoints in tests/golden/checkpoints.

Each folder holds a checkpoint with random weights, and ``expected.npz``: ``images`` in [-1, 1] and their ``logits``.

- ``augreg_tiny``: google-research/vision_transformer.
- ``big_vision_*``: google-research/big_vision. ``tiny`` and ``stacked`` pool by the mean; ``stacked`` has the blocks of
  ``scan=True``. ``token`` has a class token and a tanh layer, ``map`` attention pooling and an optimizer's state.
  ``computed`` has ``posemb="sincos2d"``.
- ``timm_*``: timm 1.0.31. ``deit3`` has LayerScale and ``no_embed_class``; ``gap`` has no bias of queries, keys and
  values; ``map`` has attention pooling, GELU in its tanh form, and no config.json.
- ``hugging_face``: transformers 5.24.
"""

import pathlib

import numpy as np
import pytest

from tests.interop import in_memory
from vmoe_inform.interop import families, formats
from vmoe_inform.interop.comparison import TOLERANCE, relative_error

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "checkpoints"
NOT_TESTED = "NOT TESTED: models of timm; pip install 'vmoe-inform[timm]'"
CASES = {
    "augreg_tiny": ("vision_transformer", {}),
    "big_vision_tiny": ("big_vision", {}),
    "big_vision_token": ("big_vision", {}),
    "big_vision_map": ("big_vision", {}),
    "big_vision_computed": ("big_vision", {"image_size_px": 16}),
    "big_vision_stacked": ("big_vision", {}),
    "timm_token": ("timm", {}),
    "timm_deit3": ("timm", {}),
    "timm_gap": ("timm", {}),
    "timm_map": ("timm", {"num_heads": 3, "activation": "gelu"}),
    "hugging_face": ("hugging_face", {}),
}


def checkpoint(name):
    file = "vit.npz" if (FOLDER / name / "vit.npz").exists() else "model.safetensors"
    return formats.open_checkpoint(FOLDER / name / file)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_program(name):
    family, given = CASES[name]
    stored = checkpoint(name)
    assert families.recognise(stored) is families.FAMILIES[family]
    with np.load(FOLDER / name / "expected.npz") as expected:
        error = relative_error(in_memory.logits(stored, expected["images"], given), expected["logits"])
    assert error <= TOLERANCE / 20  # 5e-6; they were at most 8e-7 apart


@pytest.mark.slow
def test_the_form_of_gelu_makes_a_difference():
    """So that the test above could fail."""
    stored = checkpoint("timm_map")
    with np.load(FOLDER / "timm_map" / "expected.npz") as expected:
        other = in_memory.logits(stored, expected["images"], {"num_heads": 3, "activation": "gelu_exact"})
        assert relative_error(other, expected["logits"]) > 2 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", ["vit_tiny_patch16_224", "deit3_small_patch16_224", "vit_small_patch14_dinov2"]
)
def test_random_vits_of_the_installed_timm(architecture, tmp_path):
    """At 98 or 96 px, with a head and LayerScale that do something."""
    timm = pytest.importorskip("timm", reason=NOT_TESTED)
    import torch
    from safetensors.torch import save_file
    from timm.models._hub import save_config_for_hf

    torch.manual_seed(0)
    size = 98 if "patch14" in architecture else 96
    model = timm.create_model(architecture, img_size=size, num_classes=10).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith(("gamma", "bias", "head.weight")):
                values.copy_(0.1 * torch.randn(values.shape) + name.endswith("gamma"))
        images = torch.rand(2, 3, size, size) * 2 - 1
        logits = model(images).numpy()
    save_file({name: array.contiguous() for name, array in model.state_dict().items()}, tmp_path / "model.safetensors")
    save_config_for_hf(model, tmp_path / "config.json")
    ours = in_memory.logits(formats.open_checkpoint(tmp_path), images.numpy().transpose(0, 2, 3, 1))
    assert relative_error(ours, logits) <= TOLERANCE
