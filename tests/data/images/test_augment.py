import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images import augment

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).integers(1, 256, (64, 6, 6, 3), np.uint8))


def test_normalize():
    # (0 / 255 - 0.5) / 0.25 = -2, (255 / 255 - 0.5) / 0.25 = 2, (51 / 255 - 0.5) / 0.25 = -1.2
    data = ImageDataConfig(pixel_mean=0.5, pixel_std=0.25)
    result = augment.normalize(jnp.array([0, 255, 51], jnp.uint8).reshape(3, 1, 1, 1), data)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result.ravel(), [-2.0, 2.0, -1.2], rtol=1e-6)


def test_nothing_asked_changes_nothing():
    np.testing.assert_array_equal(augment.augment(KEY, IMAGES, ImageDataConfig()), IMAGES)


def moved(image, down, right):
    """The plain definition: pixel (y, x) goes to (y + down, x + right), black where nothing comes from."""
    result = np.zeros_like(image)
    size = len(image)
    for y in range(size):
        for x in range(size):
            if 0 <= y + down < size and 0 <= x + right < size:
                result[y + down, x + right] = image[y, x]
    return result


def test_shift_moves_each_image_by_its_own_offset_over_the_whole_range():
    results = np.asarray(jax.jit(lambda key: augment.augment(key, IMAGES, ImageDataConfig(random_shift_px=1)))(KEY))
    assert results.dtype == np.uint8
    offsets = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    found = []
    for image, result in zip(np.asarray(IMAGES), results, strict=True):
        fitting = [offset for offset in offsets if (moved(image, *offset) == result).all()]
        assert len(fitting) == 1
        found += fitting
    # 64 draws of 9 offsets leave one out with probability below 9 (8/9)^64 = 0.5 %, and the key is fixed.
    assert set(found) == set(offsets)


def test_flip_mirrors_about_half_of_the_images():
    results = np.asarray(augment.augment(KEY, IMAGES, ImageDataConfig(random_flip=True)))
    images = np.asarray(IMAGES)
    flipped = (results == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (results == images).all(axis=(1, 2, 3))
    assert (flipped ^ kept).all()
    assert 16 < flipped.sum() < 48  # 4 standard deviations of 64 fair coins


def test_key_decides():
    data = ImageDataConfig(random_shift_px=2, random_flip=True)
    first, again, other = (augment.augment(jax.random.key(seed), IMAGES, data) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_mixup_mixes_images_and_targets_with_one_share_that_is_beta_distributed():
    images, targets = IMAGES[:4].astype(jnp.float32), jnp.eye(4)
    keys = jax.random.split(KEY, 2000)
    mixed_images, mixed_targets = jax.jit(jax.vmap(lambda key: augment.mixup(key, images, targets, 0.2)))(keys)
    # Row i of the targets is share * e_i + (1 - share) * e_(i - 1): one share for the batch, and so for the images.
    mixed_images, mixed_targets = np.asarray(mixed_images), np.asarray(mixed_targets)
    shares = mixed_targets[:, 0, 0]
    weights = shares[:, None, None] * np.eye(4) + (1 - shares[:, None, None]) * np.roll(np.eye(4), 1, axis=0)
    np.testing.assert_allclose(mixed_targets, weights, atol=1e-6)
    np.testing.assert_allclose(
        mixed_images, np.einsum("kij,jyxc->kiyxc", weights, np.asarray(images)), rtol=1e-4, atol=1e-3
    )
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)) = 0.1786 for a = 0.2; four standard errors of 2000 draws.
    np.testing.assert_allclose(shares.mean(), 0.5, atol=0.04)
    np.testing.assert_allclose(shares.var(), 0.1786, atol=0.012)


def test_mixup_needs_a_positive_alpha():
    with pytest.raises(ValueError, match=r"alpha: expected a number > 0.*received 0"):
        augment.mixup(KEY, jnp.zeros((2, 1, 1, 1)), jnp.eye(2), 0)


def cutmix_slowly(images, targets, share, centre):
    """Pixel by pixel: inside of the rectangle the image before, and a pixel's worth of its target for each."""
    size = images.shape[1]
    side = round(float(np.sqrt(1 - share)) * size)
    mixed, weights = images.copy(), np.ones(len(images))
    for y in range(size):
        for x in range(size):
            if all(c - side // 2 <= at < c - side // 2 + side for at, c in zip((y, x), centre, strict=True)):
                for i in range(len(images)):
                    mixed[i, y, x] = images[i - 1, y, x]
                    weights[i] -= 1 / size**2
    return mixed, weights[:, None] * targets + (1 - weights[:, None]) * np.roll(targets, 1, axis=0)


def test_cutmix_is_the_plain_definition():
    images, targets = IMAGES[:3].astype(jnp.float32), jnp.eye(3)

    @jax.jit
    @jax.vmap
    def drawn_and_mixed(key):
        share_key, place_key = jax.random.split(key)
        share, centre = jax.random.beta(share_key, 1.0, 1.0), jax.random.randint(place_key, (1, 2), 0, 6)[0]
        return share, centre, *augment.cutmix(key, images, targets, 1.0)

    kept = set()
    for share, centre, *mixed in zip(*drawn_and_mixed(jax.random.split(KEY, 20)), strict=True):
        expected = cutmix_slowly(np.asarray(images), np.asarray(targets), float(share), np.asarray(centre))
        np.testing.assert_array_equal(mixed[0], expected[0])
        np.testing.assert_allclose(mixed[1], expected[1], atol=1e-6)
        kept.add(float(mixed[1][0, 0]))
    assert len(kept) > 5  # rectangles of many sizes, some of them cut off at an edge


def test_with_both_alphas_each_batch_gets_one_of_mixup_and_cutmix():
    images, targets = jnp.stack([jnp.zeros((8, 8, 1)), jnp.ones((8, 8, 1))]), jnp.eye(2)
    keys = jax.random.split(KEY, 200)
    mixed, _ = jax.jit(jax.vmap(lambda key: augment.mix(key, images, targets, 1.0, 1.0)))(keys)
    values = np.asarray(mixed)[:, 0, :, :, 0]
    cut = np.isin(values, (0.0, 1.0)).all(axis=(1, 2))  # pixels of either image, not between them
    blended = (values == values[:, :1, :1]).all(axis=(1, 2))  # one share for all pixels
    assert (cut | blended).all()
    assert 72 < (cut & ~blended).sum() < 128  # four standard deviations of 200 fair coins
    assert (blended & ~cut).sum() > 72


def test_with_one_alpha_there_is_no_choice():
    images, targets = IMAGES[:4].astype(jnp.float32), jnp.eye(4)

    def program(function, *alphas):
        return str(jax.make_jaxpr(lambda key: function(key, images, targets, *alphas))(KEY))

    assert program(augment.mix, 0.3, 0.0) == program(augment.mixup, 0.3)
    assert program(augment.mix, 0.0, 0.3) == program(augment.cutmix, 0.3)
    assert augment.mix(KEY, images, targets, 0.0, 0.0) == (images, targets)


def rectangle_of(changed):
    """Top, left, height, width of the changed pixels [P, P], which have to fill a rectangle."""
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    top, left, height, width = rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1
    assert changed[top : top + height, left : left + width].all()
    assert changed.sum() == height * width
    return top, left, height, width


def test_random_erasing_fills_rectangles_of_the_published_sizes_with_noise():
    size, count = 40, 400
    images = jnp.full((count, size, size, 3), 9.0)
    erase = jax.jit(lambda probability: augment.random_erasing(KEY, images, probability))
    np.testing.assert_array_equal(erase(0.0), images)
    assert (np.asarray(erase(1.0)) != 9.0).any(axis=(1, 2, 3)).all()
    erased = np.asarray(erase(0.25))
    changed = (erased != 9.0).all(axis=-1)
    np.testing.assert_array_equal(changed, (erased != 9.0).any(axis=-1))
    chosen = changed.any(axis=(1, 2))
    assert 65 < chosen.sum() < 135  # four standard deviations of 400 coins of 1/4
    boxes = np.array([rectangle_of(mask) for mask in changed[chosen]])
    top, left, height, width = boxes.T
    # Up to half a pixel of rounding on each side.
    assert ((height + 0.5) * (width + 0.5) >= 0.02 * size**2).all()
    assert ((height - 0.5) * (width - 0.5) <= size**2 / 3).all()
    assert ((height + 0.5) / (width - 0.5) >= 0.3).all()
    assert ((height - 0.5) / (width + 0.5) <= 1 / 0.3).all()
    # Uniform area: mean (0.02 + 1/3) / 2 = 0.1767, standard deviation 0.0904; four standard errors of 100.
    np.testing.assert_allclose(np.mean(height * width) / size**2, 0.1767, atol=0.04)
    assert len(np.unique(np.stack([top, left]), axis=1).T) > 50
    noise = erased[changed]
    np.testing.assert_allclose([noise.mean(), noise.std()], [0.0, 1.0], atol=0.02)
