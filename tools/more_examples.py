"""How does a test of a property try more examples in `make test-engines` than in `make test`?

::

    @settings(max_examples=10)
    @given(st.text())
    def test_a_text_is_read_as_written(text): ...

    test_a_text_in_more_examples = with_more_examples(
        test_a_text_is_read_as_written, settings(max_examples=100), st.text()
    )
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings


def with_more_examples(test: Any, how: settings, *strategies: Any, **named: Any) -> Any:
    """The same test with other settings, in `make test-engines` only."""
    given_examples: Any = given(*strategies, **named)
    more = how(given_examples(test.hypothesis.inner_test))
    return pytest.mark.slow(pytest.mark.thorough(more))
