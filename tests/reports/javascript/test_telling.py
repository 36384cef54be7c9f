"""What is a JavaScript stack, and what only quotes one."""

from __future__ import annotations

import pytest

from deadreckon.reports.javascript.telling import stack_text

STACK = "Error: lost\n    at read (https://example.com/app.js:1:20)\n"


@pytest.mark.parametrize(
    ("text", "is_crash"),
    [
        (STACK, True),
        ("```\n" + STACK + "```\n", True),
        ("12:00 the service stopped:\n" + STACK, True),
        ("How it fails:\n\n```js\n" + STACK + "```\n", False),
        ("How it fails:\n~~~\n" + STACK + "~~~\n", False),
        ("Error: bad text\n```js\nlet a;\n```\n" + STACK.partition("\n")[2], True),
        ("Error: no place\n    at Foo.bar(Foo.java:3)\n", False),
    ],
)
def test_stacks_in_documents_are_no_crashes(text: str, is_crash: bool) -> None:
    """A fence that a message opens and closes hides nothing behind it."""
    assert stack_text(text) is is_crash
