"""Settings of models of images."""

import dataclasses
from typing import Annotated, Literal

from vmoe_inform.checks import Bound, Width
from vmoe_inform.config.settings.bounds import Number, Pixels
from vmoe_inform.config.settings.model import ModelConfig

_BYTES_A_PIXEL = 3 * (1 + 4)  # three colours, as read and in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionModelConfig(ModelConfig):
    """Vision Transformer with MoE layers; the default sizes are those of V-MoE S/32.

    Attributes:
      classifier: ``"token"`` (class token), ``"gap"`` (mean over tokens) or ``"map"`` (attention pooling).
      representation_size: width of a tanh layer before the head; None for none.
      activation: between the two layers of an MLP or expert. ``"gelu"`` is GELU in its tanh form, as in ViT and V-MoE;
        ``"gelu_exact"`` uses the error function, as in timm and Hugging Face.
      layer_norm_epsilon: added to the variance in every LayerNorm; 1e-12 in Hugging Face's ViT.
    """

    inputs: Literal["images"] = "images"
    num_classes: Width = 1000
    image_size_px: Pixels = 224
    patch_size_px: Pixels = 32
    classifier: Literal["token", "gap", "map"] = "token"
    representation_size: Width | None = 512
    activation: Literal["gelu", "gelu_exact"] = "gelu"
    layer_norm_epsilon: Annotated[float, Bound(above=0.0, at_most=1.0)] = 1e-6
    head_bias_initial_value: Number = 0.0

    @property
    def num_tokens(self) -> int:
        """N: patches of one image, plus the class token if there is one."""
        return (self.image_size_px // self.patch_size_px) ** 2 + (self.classifier == "token")

    @property
    def raw_input_size(self) -> int:
        """Numbers of the pixels of one patch."""
        return self.patch_size_px**2 * 3

    @property
    def num_outer_parameters(self) -> int:
        """About how many parameters the patch and position embeddings and the head have."""
        features = self.representation_size or self.hidden_size
        heads = (self.representation_size or 0) * self.hidden_size + features * self.num_classes
        return self.hidden_size * (self.raw_input_size + self.num_tokens) + heads

    @property
    def input_bytes(self) -> int:
        """Memory of one image."""
        return _BYTES_A_PIXEL * self.image_size_px**2
