"""The tree drawn in `darkroom.errors` is the tree that exists."""

import inspect
import re

import pytest

from darkroom import errors
from darkroom.errors import DarkroomError, MissingExtra, Retryable, SettingsError, Terminal

CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, DarkroomError)
}


def drawn() -> dict[str, str | None]:
    """Read the docstring's drawing: each class with the one above it."""
    tree: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ((?:│   |    )*(?:[├└]── )?)([A-Z]\w+)(?: |$)", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            tree[found[2]] = path[depth - 1] if depth else None
    return tree


def test_the_drawing_names_every_class_and_no_other() -> None:
    assert drawn().keys() == CLASSES.keys()


def test_the_drawing_shows_each_class_under_its_base() -> None:
    bases = {
        name: None if kind is DarkroomError else kind.__base__.__name__
        for name, kind in CLASSES.items()
    }
    assert drawn() == bases


def test_every_class_says_what_it_means_and_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in CLASSES.values()]
    assert len(set(codes)) == len(codes)
    for kind in CLASSES.values():
        assert kind.__doc__
        assert "code" in vars(kind)


def test_nothing_is_both_terminal_and_retryable() -> None:
    for kind in CLASSES.values():
        assert not (issubclass(kind, Terminal) and issubclass(kind, Retryable))


def test_an_error_carries_its_sentence_and_target() -> None:
    error = SettingsError("the lease is too short", target="DARKROOM_LEASE_SECONDS")
    assert str(error) == error.message == "the lease is too short"
    assert error.target == "DARKROOM_LEASE_SECONDS"


def test_a_missing_extra_names_the_cure() -> None:
    with pytest.raises(SettingsError, match=re.escape("pip install 'darkroom[azure]'")):
        raise MissingExtra("azure", "servicebus://")
