"""Augmentation on the device: pure, jittable functions of a key and a batch."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, UInt8

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float
from vmoe_inform.config import ImageDataConfig

# Of random erasing: share of the image's area, height / width, and draws until a rectangle fits.
_LEAST_ERASED, _MOST_ERASED = 0.02, 1 / 3
_LEAST_ASPECT = 0.3
_TRIES = 10


def normalize(images: Array, data: ImageDataConfig) -> Float[Array, "B P P 3"]:
    """Pixels 0 to 255 [B, P, P, 3] -> float32 (pixel / 255 - ``data.pixel_mean``) / ``data.pixel_std``."""
    mean, std = jnp.asarray(data.pixel_mean), jnp.asarray(data.pixel_std)  # [] or [3]
    shape = (1,) * (images.ndim - 1) + (-1,)
    return (images.astype(jnp.float32) / 255.0 - mean.reshape(shape)) / std.reshape(shape)


def augment(key: Array, images: UInt8[Array, "B P P 3"], data: ImageDataConfig) -> UInt8[Array, "B P P 3"]:
    """Rotates, zooms, shifts and mirrors each image at random, within the settings.

    Rotation is by up to ``data.random_rotation_degrees``, zoom by a factor of up to 1 + ``data.random_zoom`` (either
    way). Both are about the centre, with bilinear interpolation. Shifts are up to ``data.random_shift_px`` whole
    pixels. With ``data.random_flip`` an image is mirrored with probability 1/2.

    Uncovered pixels are black (0), as the background of digits and garments, and as padding of photographs. Repeating
    the edge would turn strokes that touch it into bars.

    Args:
      key: of this step; an image's change depends on the key and on its position in the batch.
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


def random_erasing(key: Array, images: Float[Array, "B P P 3"], probability: float) -> Float[Array, "B P P 3"]:
    """Fills a random rectangle of some images with noise (Zhong 2017, arXiv 1708.04896, Algorithm 1).

    The rectangle's area is uniform between 0.02 and 1/3 of the image's, its height / width uniform between 0.3 and
    1 / 0.3, and its place uniform. One that does not fit into the image is drawn again, up to ten times, after which
    the image stays as it is.

    Args:
      key: of this step.
      images: normalised; the noise is standard normal, for each pixel and channel.
      probability: of each image to be changed.
    """
    count, size = images.shape[:2]
    chosen_key, area_key, aspect_key, place_key, noise_key = jax.random.split(key, 5)
    area = jax.random.uniform(area_key, (count, _TRIES), minval=_LEAST_ERASED, maxval=_MOST_ERASED) * size**2
    aspect = jax.random.uniform(aspect_key, (count, _TRIES), minval=_LEAST_ASPECT, maxval=1 / _LEAST_ASPECT)
    # [B, tries, 2]: height and width in whole pixels
    sides = jnp.round(jnp.sqrt(jnp.stack([area * aspect, area / aspect], axis=-1))).astype(jnp.int32)
    fits = jnp.all((sides > 0) & (sides <= size), axis=-1)
    first = jnp.argmax(fits, axis=1)
    sides = jnp.take_along_axis(sides, first[:, None, None], axis=1)[:, 0]  # [B, 2]
    corners = jax.random.randint(place_key, (count, 2), 0, jnp.maximum(size - sides, 0) + 1)
    inside = _rectangles(corners, sides, size)
    chosen = jax.random.bernoulli(chosen_key, probability, (count,)) & jnp.any(fits, axis=1)
    noise = jax.random.normal(noise_key, images.shape, images.dtype)
    return jnp.where((inside & chosen[:, None, None])[..., None], noise, images)


def _rectangles(corners: Int[Array, "B 2"], sides: Int[Array, "B 2"], size: int) -> Bool[Array, "B P P"]:
    """Which pixels lie in each rectangle, of (top, left) and (height, width) in pixels. Comparisons of counters alone,
    which compilers fuse and shard."""
    at = jnp.arange(size)[None, None, :]
    along = (at >= corners[..., None]) & (at < (corners + sides)[..., None])  # [B, 2, P]
    return along[:, 0, :, None] & along[:, 1, None, :]


def mix(
    key: Array,
    images: Float[Array, "B P P 3"],
    targets: Float[Array, "B classes"],
    mixup_alpha: float,
    cutmix_alpha: float,
) -> tuple[Float[Array, "B P P 3"], Float[Array, "B classes"]]:
    """:func:`mixup`, :func:`cutmix`, or with both alphas > 0 one of them with probability 1/2; nothing with none."""
    if mixup_alpha > 0 and cutmix_alpha > 0:
        choice_key, mixup_key, cutmix_key = jax.random.split(key, 3)
        shares = jnp.where(
            jax.random.bernoulli(choice_key),
            _cutmix_shares(cutmix_key, cutmix_alpha, images.shape[1]),
            _mixup_shares(mixup_key, mixup_alpha, images.shape[1]),
        )
        return _mix(shares, images, targets)
    if mixup_alpha > 0:
        return mixup(key, images, targets, mixup_alpha)
    if cutmix_alpha > 0:
        return cutmix(key, images, targets, cutmix_alpha)
    return images, targets


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
    return _mix(_mixup_shares(key, alpha, images.shape[1]), images, targets)


def cutmix(
    key: Array, images: Float[Array, "B P P 3"], targets: Float[Array, "B classes"], alpha: float
) -> tuple[Float[Array, "B P P 3"], Float[Array, "B classes"]]:
    """CutMix: replaces a rectangle of each image by that of the image before it (Yun 2019, arXiv 1905.04899, Sec. 3.1).

    One rectangle is drawn for the whole batch (Eq. 2). With lambda ~ Beta(alpha, alpha) its sides are sqrt(1 - lambda)
    P pixels. Its centre is uniform, and the edges of the image cut it off. An image's target keeps the share of the
    pixels that the image keeps.

    Args:
      key, images, targets, alpha: as :func:`mixup`.

    Raises:
      ValueError: alpha not > 0.
    """
    return _mix(_cutmix_shares(key, alpha, images.shape[1]), images, targets)


def _mixup_shares(key: Array, alpha: float, size: int) -> Float[Array, "P P"]:
    checks.positive("alpha", alpha)
    return jnp.full((size, size), jax.random.beta(key, alpha, alpha))


def _cutmix_shares(key: Array, alpha: float, size: int) -> Float[Array, "P P"]:
    checks.positive("alpha", alpha)
    share_key, place_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha)
    side = jnp.round(jnp.sqrt(1 - share) * size).astype(jnp.int32)
    centre = jax.random.randint(place_key, (1, 2), 0, size)
    inside = _rectangles(centre - side // 2, jnp.full((1, 2), side), size)[0]
    return 1.0 - inside.astype(jnp.float32)


def _mix(
    shares: Float[Array, "P P"], images: Float[Array, "B P P 3"], targets: Float[Array, "B classes"]
) -> tuple[Float[Array, "B P P 3"], Float[Array, "B classes"]]:
    """Of each pixel the given share of its image and the rest of the image before; of the targets the mean share."""

    # A roll, not a permutation: on a sharded batch only the edges of the shards move between devices.
    def mixed(values: Array, share: Array) -> Array:
        return share * values + (1 - share) * jnp.roll(values, 1, axis=0)

    return mixed(images, shares[None, :, :, None]), mixed(targets, jnp.mean(shares)[None, None])
