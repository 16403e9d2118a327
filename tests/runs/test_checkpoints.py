"""Checkpoints on other devices, with other models and in folders of any name."""

import chex
import jax
import pytest

from tests.runs.states_by_hand import make_state, restore, write
from vmoe_inform import storage
from vmoe_inform.runs import saved_trees


@pytest.mark.parametrize(
    ("before", "after"), [((8, 1), (1, 1)), ((2, 4), (4, 2)), ((1, 1), (1, 8))], ids=["8 to 1", "2x4 to 4x2", "1 to 8"]
)
def test_restored_onto_another_mesh(tmp_path, before, after):
    write(tmp_path, 3, replica=before[0], expert=before[1])
    state, record = restore(tmp_path, replica=after[0], expert=after[1])
    wanted = make_state(3, replica=after[0], expert=after[1])
    chex.assert_trees_all_equal(state, wanted)
    assert jax.tree.map(lambda a: a.sharding, state) == jax.tree.map(lambda a: a.sharding, wanted)
    assert record == 3


def test_another_model_is_refused_with_the_paths(two):
    with pytest.raises(ValueError, match=r"checkpoint 2 is of another model.*head/kernel: expected \(5, 3\); .*\(4, 3"):
        restore(two, width=5)


@pytest.mark.parametrize(
    "name", ["a|b", "a b", "a%20b#c", "$a$ {x}", "狗", "a\nb", "a:b", "~x", "-x", "'q\" <b>", "x" * 200]
)
def test_a_folder_of_any_name(tmp_path, name):
    write(tmp_path / name, 1)
    chex.assert_trees_all_equal(restore(tmp_path / name)[0], make_state(1))


@pytest.mark.parametrize("name", ["[x]", "a*", "a?b", "a\\b", "gs:/x", "\udcff"])
def test_a_name_that_orbax_would_interpret_is_refused_and_a_link_is_not(tmp_path, name):
    with pytest.raises(ValueError, match=r"^workdir: expected a path .* \(or a link to it\); received"):
        write(tmp_path / name, 1)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / name)
    write(tmp_path / "link", 1)
    chex.assert_trees_all_equal(restore(tmp_path / "link")[0], make_state(1))


@pytest.mark.parametrize("name", ["a#b", "a;b/c"])
def test_an_address_that_the_library_would_cut_off_is_refused(name):
    with pytest.raises(ValueError, match="workdir: expected an address without # and ;"):
        saved_trees.check_path(storage.path("workdir", f"gs://test/{name}"))
