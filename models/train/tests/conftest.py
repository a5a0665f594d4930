"""The tests draw pages, which needs the fonts and word lists of fonts.txt."""

import pytest

from vintern_train import fonts, wordlists


def missing() -> str | None:
    """What the machine lacks for drawing pages."""
    try:
        fonts.faces(unseen=False)
        fonts.faces(unseen=True)
        wordlists.vietnamese_syllables(held_out=False)
        wordlists.english_words(held_out=False)
    except FileNotFoundError as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what cannot run, and says what to install."""
    reason = missing()
    if reason:
        for item in items:
            if "test_samples" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=reason))
