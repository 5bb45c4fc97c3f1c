"""What a run of the tests was promised to find. Where it is absent, the tests fail that would else be skipped.

MORPH_REQUIRE=comfyui,browser,node python -m pytest     # any of KINDS, separated by commas
"""

import os
from typing import NoReturn

import pytest

VARIABLE = "MORPH_REQUIRE"
KINDS = ("comfyui", "browser", "node")


def promised() -> set[str]:
    """Raises `pytest.UsageError` for what there is no promise of."""
    kinds = {name.strip() for name in os.environ.get(VARIABLE, "").split(",")} - {""}
    if unknown := kinds - {*KINDS}:
        raise pytest.UsageError(f"{VARIABLE} names {', '.join(sorted(unknown))}; it may name {', '.join(KINDS)}")
    return kinds


def absent(kind: str, reason: str) -> NoReturn:
    """Skip what needs one of KINDS, or fail it where that was promised. reason: what is missing, what to do."""
    if kind in promised():
        pytest.fail(f"{VARIABLE} promises {kind}, but: {reason}", pytrace=False)
    pytest.skip(reason)
