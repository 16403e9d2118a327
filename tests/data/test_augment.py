import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.config import DataConfig
from vmoe_inform.data import augment

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).integers(1, 256, (64, 6, 6, 3), np.uint8))


def test_normalize():
    # (0 / 255 - 0.5) / 0.25 = -2, (255 / 255 - 0.5) / 0.25 = 2, (51 / 255 - 0.5) / 0.25 = -1.2
    data = DataConfig(pixel_mean=0.5, pixel_std=0.25)
    result = augment.normalize(jnp.array([0, 255, 51], jnp.uint8).reshape(3, 1, 1, 1), data)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result.ravel(), [-2.0, 2.0, -1.2], rtol=1e-6)


def test_nothing_asked_changes_nothing():
    np.testing.assert_array_equal(augment.augment(KEY, IMAGES, DataConfig()), IMAGES)


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
    results = np.asarray(jax.jit(lambda key: augment.augment(key, IMAGES, DataConfig(random_shift_px=1)))(KEY))
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
    results = np.asarray(augment.augment(KEY, IMAGES, DataConfig(random_flip=True)))
    images = np.asarray(IMAGES)
    flipped = (results == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (results == images).all(axis=(1, 2, 3))
    assert (flipped ^ kept).all()
    assert 16 < flipped.sum() < 48  # 4 standard deviations of 64 fair coins


def test_key_decides():
    data = DataConfig(random_shift_px=2, random_flip=True)
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
