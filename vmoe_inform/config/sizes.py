"""Memory of a model and its batches: whether any machine can hold it, and whether this one can."""

import os

from vmoe_inform import checks
from vmoe_inform.config.settings import Config, ModelConfig

_MOST_PARAMETERS = 2**40  # 4 TiB in float32
_MOST_TOKENS = 2**20  # of a sequence
_MOST_CAPACITY = 2**31 - 1  # slots of an expert, which are counted in int32


def check_model(model: ModelConfig) -> None:
    """Raises ValueError if no machine can hold a model whose settings are possible one by one."""
    _at_most("model", "tokens of a sequence", model.num_tokens, _MOST_TOKENS)
    _at_most("model", "parameters", _num_parameters(model), _MOST_PARAMETERS)
    moe = model.moe
    tokens = moe.group_size_sequences * model.num_tokens * moe.num_selected_experts / moe.num_experts
    for field in ("capacity_factor", "capacity_factor_evaluation"):
        factor = getattr(moe, field)
        share = tokens * factor if factor is not None else moe.group_size_sequences * model.num_tokens
        capacity = int(share) + moe.capacity_multiple_of
        _at_most(f"model.moe.{field}", "slots of an expert for a group", capacity, _MOST_CAPACITY)


def check_memory(config: Config, num_devices: int, num_local_devices: int, *, train: bool = True) -> None:
    """Raises ValueError if a batch of the config cannot fit into this machine's memory.

    It counts the sequences as they are read, and as the model takes them. A batch that passes may still be too
    large for the model's activations.

    Args:
      config: of the run.
      num_devices: of all processes, over which a batch is shared out.
      num_local_devices: of this one.
      train: False: only batches of evaluation are looked at.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    sequence_bytes = config.model.input_bytes
    sizes = {"evaluation.batch_size": config.evaluation.batch_size}
    if train:
        sizes["train.batch_size"] = config.train.batch_size
    for field, size in sizes.items():
        share = size * num_local_devices // num_devices
        if share * sequence_bytes > memory:
            most = memory // sequence_bytes * num_devices // num_local_devices
            raise checks.error(field, f"at most {most:,} sequences, which this machine's memory can hold", size)


def _at_most(field: str, what: str, number: int, most: int) -> None:
    if number > most:
        raise checks.error(field, f"at most {most:,} {what}", number)


def _num_parameters(model: ModelConfig) -> int:
    """About how many parameters the model has: those of its large matrices."""
    width, num_moe = model.hidden_size, len(model.moe_layers)
    mlps = model.num_layers - num_moe + num_moe * (model.moe.num_experts + model.moe.shared_experts)
    router = num_moe * width * model.moe.num_experts
    blocks = model.num_layers * 4 * width**2 + mlps * 2 * width * model.mlp_size
    return model.num_outer_parameters + blocks + router
