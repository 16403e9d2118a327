"""What names of parameters begin with, where a program keeps them inside a state of training or another module."""

from collections.abc import Mapping, Sequence

# States of Flax's training loops; those of before optax have the parameters as the optimizer's target.
FLAX: Sequence[str] = (
    "",
    "params/",
    "target/params/",
    "target/",
    "optimizer/target/params/",
    "optimizer/target/",
    "opt/target/params/",
    "opt/target/",
    "state/params/",
    "model/params/",
)
# torch.nn.DataParallel, Lightning, and models that keep a ViT as a part
TORCH: Sequence[str] = ("", "module.", "model.", "backbone.", "timm_model.")

_STATE = "opt|opt_state|optimizer|state|step|global_step|rngs?|[a-z_]*_rng|rng_loop|chrono|iter|target_state"
FLAX_STATE: Mapping[str, str] = {rf"({_STATE})(/.*)?": "state of training"}
