"""What MORPH_REQUIRE promises fails where it is absent; the rest is skipped."""

import pytest

from morph_tests.promises import KINDS, VARIABLE, absent, promised


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_promised_fails_and_the_rest_is_skipped(monkeypatch, kind):
    monkeypatch.setenv(VARIABLE, kind)
    for other in KINDS:
        with pytest.raises(pytest.fail.Exception if other == kind else pytest.skip.Exception, match="install it"):
            absent(other, "install it")


def test_without_promises_everything_is_skipped(monkeypatch):
    for promises in ("", " , "):
        monkeypatch.setenv(VARIABLE, promises)
        with pytest.raises(pytest.skip.Exception):
            absent("node", "install it")
    monkeypatch.delenv(VARIABLE)
    assert promised() == set()


def test_a_promise_of_something_else_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "comfyui, brwoser")
    with pytest.raises(pytest.UsageError, match="names brwoser; it may name comfyui, browser, node"):
        promised()
