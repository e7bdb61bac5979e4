from __future__ import annotations

import hashlib
import string

import pytest

from tpo_lab.datasets import templates

# Taken from the paper's text, not from the module: the questions of a table, one a line, with the paper's names in angle brackets.
IN_THE_PAPER = {
    "TEMPORAL": ("query", 5, "c5b85967d81f61d9f8a958b2b94f0a74cdb48b1fa81729bc69c16a0b4ce48ca8"),
    "TRACKING": ("track_box", 10, "f34a01d7c4910781b94ebf3da6013015fcc7f1be6157bd8776e04d8599b98a4e"),
    "REGION": ("expr", 10, "c5a8f40c25154e6eb1d9e937729c7c37529605df8af9746b0fd5c5534ccacf30"),
    "SEGMENTATION": ("obj", 7, "6695a04a028bf170d9b3c3b072463830f0179f7ba363dae6ce358aaa1bb42acb"),
}
OUR_NAMES = {"TEMPORAL": "query", "TRACKING": "box", "REGION": "query", "SEGMENTATION": "query"}


@pytest.mark.parametrize("table", IN_THE_PAPER)
def test_wording_is_that_of_the_paper(table):
    name, count, digest = IN_THE_PAPER[table]
    worded = getattr(templates, table)
    text = "\n".join(worded).replace("{" + OUR_NAMES[table] + "}", f"<{name}>")
    assert len(worded) == len(set(worded)) == count
    assert hashlib.sha256(text.encode()).hexdigest() == digest


@pytest.mark.parametrize("table", IN_THE_PAPER)
def test_every_template_has_its_one_place(table):
    for template in getattr(templates, table):
        assert [name for _, name, _, _ in string.Formatter().parse(template) if name is not None] == [OUR_NAMES[table]]


def test_captions_are_asked_for_without_a_place():
    assert len(set(templates.CAPTION)) == len(templates.CAPTION) > 1
    assert not any("{" in template for template in templates.CAPTION)
