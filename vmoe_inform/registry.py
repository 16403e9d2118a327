"""Names that a config may use, and the functions behind them."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from vmoe_inform import checks

T = TypeVar("T")

_registering: dict[str, None] = {}  # in the order of time


def registering_modules() -> tuple[str, ...]:
    """Names of the modules whose import has registered something in this process."""
    return tuple(_registering)


def _note_module() -> None:
    """Notes the module whose own code is running, innermost where one imports another."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is not None:
        _registering.setdefault(frame.f_globals.get("__name__", "__main__"))


class Registry(Generic[T]):
    """Maps names to entries; an unknown name is a ValueError that lists the known ones."""

    def __init__(self, kind: str):
        """Args:
        kind: what the entries are, in words for error messages, e.g. ``"dispatcher"``.
        """
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Registers ``entry``; a name can be taken only once. It stands in tables, file names and tags."""
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise checks.error(f"name of a {self.kind}", "letters, digits, and _ . - after the first", name)
        if name in self._entries:
            raise checks.InputError(f"{self.kind} {name!r} is already registered: expected a new name")
        self._entries[name] = entry
        _note_module()
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of :meth:`add`."""
        return lambda entry: self.add(name, entry)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise checks.unknown(self.kind, f"one of {', '.join(sorted(self._entries))}", name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
