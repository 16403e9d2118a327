"""V-MoE with informed routing in JAX and Flax."""

__version__ = "0.1.0"
