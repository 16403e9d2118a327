"""Augmentation on the device: pure, jittable functions of a key and a batch."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import UInt8

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float
from vmoe_inform.config import DataConfig


def normalize(images: Array, data: DataConfig) -> Float[Array, "B P P 3"]:
    """Pixels 0 to 255 [B, P, P, 3] -> float32 (pixel / 255 - ``data.pixel_mean``) / ``data.pixel_std``."""
    mean, std = jnp.asarray(data.pixel_mean), jnp.asarray(data.pixel_std)  # [] or [3]
    shape = (1,) * (images.ndim - 1) + (-1,)
    return (images.astype(jnp.float32) / 255.0 - mean.reshape(shape)) / std.reshape(shape)


def augment(key: Array, images: UInt8[Array, "B P P 3"], data: DataConfig) -> UInt8[Array, "B P P 3"]:
    """Turns, zooms, moves and mirrors each image at random, as far as the settings say.

    By up to ``data.random_rotation_degrees`` and a factor of up to 1 + ``data.random_zoom`` (either way) about the
    centre, with bilinear interpolation; by up to ``data.random_shift_px`` whole pixels; mirrored with probability 1/2
    if ``data.random_flip``.

    What this uncovers is black (0): the background of digits and garments, and what the usual padding-and-cropping
    of photographs shows. Repeating the edge would draw strokes that touch it out into bars.

    Args:
      key: of this step; an image's change depends on the key and on its place in the batch.
      images: pixels 0 to 255.
      data: the settings.
    """
    affine_key, shift_key, flip_key = jax.random.split(key, 3)
    if data.random_rotation_degrees or data.random_zoom:
        images = _rotate_and_zoom(affine_key, images, data.random_rotation_degrees, data.random_zoom)
    if data.random_shift_px:
        images = _shift(shift_key, images, data.random_shift_px)
    if data.random_flip:
        flipped = jax.random.bernoulli(flip_key, shape=(len(images), 1, 1, 1))
        images = jnp.where(flipped, images[:, :, ::-1], images)
    return images


def _rotate_and_zoom(
    key: Array, images: UInt8[Array, "B P P 3"], max_degrees: float, max_zoom: float
) -> UInt8[Array, "B P P 3"]:
    angle_key, zoom_key = jax.random.split(key)
    angles = jnp.deg2rad(jax.random.uniform(angle_key, (len(images),), minval=-max_degrees, maxval=max_degrees))
    # Uniform in the logarithm: as often by a factor f as by 1 / f
    factors = jnp.exp(jax.random.uniform(zoom_key, (len(images),), minval=-1.0) * jnp.log1p(max_zoom))
    size = images.shape[1]
    steps = jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2

    def one(image: Array, angle: Array, factor: Array) -> Array:
        # The pixel of the image that each pixel of the result shows, from the centre
        rows, columns = steps[:, None] / factor, steps[None, :] / factor
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        points = [cosine * rows - sine * columns, sine * rows + cosine * columns]
        points = [point + (size - 1) / 2 for point in points]
        show = functools.partial(jax.scipy.ndimage.map_coordinates, coordinates=points, order=1)
        return jax.vmap(show, in_axes=-1, out_axes=-1)(image.astype(jnp.float32))

    return jnp.round(jax.vmap(one)(images, angles, factors)).astype(jnp.uint8)


def _shift(key: Array, images: UInt8[Array, "B P P 3"], max_shift_px: int) -> UInt8[Array, "B P P 3"]:
    padding = (max_shift_px, max_shift_px)
    padded = jnp.pad(images, ((0, 0), padding, padding, (0, 0)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * max_shift_px + 1)
    return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:]))(
        padded, corners
    )


def mixup(
    key: Array, images: Float[Array, "B P P 3"], targets: Float[Array, "B classes"], alpha: float
) -> tuple[Float[Array, "B P P 3"], Float[Array, "B classes"]]:
    """Mixes each image and its target with those of the image before it in the batch (arXiv 1710.09412, Sec. 2).

    One share lambda ~ Beta(alpha, alpha) is drawn for the whole batch.

    Args:
      key: of this step.
      images: normalised or in pixels; mixing commutes with :func:`normalize`.
      targets: distribution over the classes.
      alpha: > 0.

    Raises:
      ValueError: alpha not > 0.
    """
    checks.positive("alpha", alpha)
    share = jax.random.beta(key, alpha, alpha)

    # A roll, not a permutation: on a sharded batch only the edges of the shards move between devices.
    def mix(values: Array) -> Array:
        return share * values + (1 - share) * jnp.roll(values, 1, axis=0)

    return mix(images), mix(targets)
