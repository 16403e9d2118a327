"""Adversarial images, bounded in the largest change of a pixel: pure functions of the gradient of a loss.

Pixels are float32 from 0 to 255. An adversarial image stays in that range and within ``epsilon`` of the original. It is
not rounded to whole pixel values.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float, Int

Gradient = Callable[[Array], Array]  # pixels [B, P, P, 3] -> gradient of the loss in them, images independent
Adversarial = tuple[Array, Array]  # images [B, P, P, 3], and of which of them the gradient was zero in some step [B]

MARGIN = "margin"  # what results call the loss of the attacks


class Attack(Protocol):
    """A way to change images; hashable, since a program is compiled for each."""

    def perturb(self, gradient: Gradient, images: Array, indices: Array) -> Adversarial:
        """Adversarial images [B, P, P, 3] of ``images``, whose numbers in their set are ``indices`` [B].

        Also whether an image's gradient was zero in some step [B]. Then the attack failed, which is not robustness.
        """
        ...


def margin_losses(logits: Float[Array, "B classes"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    """Largest logit of another class minus that of the label (Carlini and Wagner 2017, arXiv 1608.04644, Sec. 5, f6).

    It is positive where the model is wrong. Its gradient has the same size for any confidence. That of the
    cross-entropy is softmax(logits) minus the label, which in float32 is 0 from a margin of 17 on. Scaled logits give
    the same signs, and so the same attack.

    Args:
      logits: of at least two classes.
      labels: 0 to classes - 1.
    """
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.bool_)
    others = jnp.max(jnp.where(own, -jnp.inf, logits), axis=-1)
    return others - jnp.sum(jnp.where(own, logits, 0.0), axis=-1)


def _is_zero(gradients: Float[Array, "B P P 3"]) -> Bool[Array, " B"]:
    return jnp.all(gradients == 0.0, axis=(1, 2, 3))


def fgsm(gradient: Gradient, images: Float[Array, "B P P 3"], epsilon: float) -> Adversarial:
    """Fast gradient sign method (Goodfellow 2014, arXiv 1412.6572, Sec. 4): x + epsilon sign(gradient(x)).

    Args:
      gradient: of the loss that is to grow.
      images: pixels 0 to 255.
      epsilon: in pixel values.

    Returns:
      as :meth:`Attack.perturb`.
    """
    gradients = gradient(images)
    return jnp.clip(images + epsilon * jnp.sign(gradients), 0.0, 255.0), _is_zero(gradients)


def pgd(
    gradient: Gradient,
    images: Float[Array, "B P P 3"],
    *,
    start: Float[Array, "B P P 3"],
    epsilon: float,
    step_size: float,
    num_steps: int,
) -> Adversarial:
    """Projected gradient descent (Madry 2017, arXiv 1706.06083, Sec. 2.1): steps along the sign of the gradient.

    Args:
      gradient: of the loss that is to grow.
      images: pixels 0 to 255.
      start: first change, within epsilon; 0 for none.
      epsilon: in pixel values; after each step the change is cut to it, and the image to the range of pixels.
      step_size: in pixel values.
      num_steps: >= 1.

    Returns:
      as :meth:`Attack.perturb`.
    """
    lowest, highest = jnp.maximum(images - epsilon, 0.0), jnp.minimum(images + epsilon, 255.0)

    def step(_: Array, state: Adversarial) -> Adversarial:
        pixels, without = state
        gradients = gradient(pixels)
        return jnp.clip(pixels + step_size * jnp.sign(gradients), lowest, highest), without | _is_zero(gradients)

    first = jnp.clip(images + start, lowest, highest), jnp.zeros(images.shape[0], jnp.bool_)
    return jax.lax.fori_loop(0, num_steps, step, first)


def random_start(seed: int, indices: Int[Array, " B"], shape: tuple[int, ...], epsilon: float) -> Float[Array, "B ..."]:
    """Uniform changes up to epsilon; an image's depends on the seed and its number, not on its batch.

    Args:
      seed: of all.
      indices: number of each image in its set.
      shape: of one image.
      epsilon: in pixel values.
    """
    key = jax.random.key(seed)

    def one(index: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, index), shape, minval=-epsilon, maxval=epsilon)

    return jax.vmap(one)(indices)


@dataclasses.dataclass(frozen=True)
class FastGradientSign:
    """The attack :func:`fgsm`."""

    epsilon: float

    def perturb(self, gradient: Gradient, images: Array, indices: Array) -> Adversarial:
        return fgsm(gradient, images, self.epsilon)


@dataclasses.dataclass(frozen=True)
class ProjectedGradient:
    """The attack :func:`pgd` from a random start."""

    epsilon: float
    step_size: float
    num_steps: int
    seed: int

    def perturb(self, gradient: Gradient, images: Array, indices: Array) -> Adversarial:
        return pgd(
            gradient,
            images,
            start=random_start(self.seed, indices, images.shape[1:], self.epsilon),
            epsilon=self.epsilon,
            step_size=self.step_size,
            num_steps=self.num_steps,
        )
