import pytest

from vmoe_inform.registry import Registry


def make() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    registry.add("pear", 1)
    registry.add("apple", 2)
    return registry


def test_looks_up_and_lists_in_order():
    registry = make()
    assert (registry["pear"], registry["apple"], list(registry), len(registry)) == (1, 2, ["apple", "pear"], 2)
    assert "pear" in registry
    assert "plum" not in registry


def test_register_returns_what_it_decorates():
    registry: Registry = Registry("function")

    @registry.register("half")
    def half(x):
        return x / 2

    assert registry["half"] is half
    assert half(4) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aple", r"fruit: expected one of apple, pear; received 'aple' \(did you mean 'apple'\?\)$"),
        ("xyz", "fruit: expected one of apple, pear; received 'xyz'$"),
        (7, "fruit: expected one of apple, pear; received 7$"),
    ],
)
def test_unknown_names_list_the_known_ones(name, message):
    with pytest.raises(ValueError, match=message):
        make()[name]


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="fruit 'pear' is already registered"):
        make().add("pear", 3)
