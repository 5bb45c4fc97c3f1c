"""What `scripts/dev.py test` hands to pytest."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def dev(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # it puts the folder of the tests there, to read where ComfyUI is
    from morph_pack.scripts import dev

    return dev


def without_marks(run):
    """The arguments that are folders, and whether slow tests are left out."""
    assert run.count("-m") <= 1
    marks = run[run.index("-m") + 1] if "-m" in run else ""
    return [argument for argument in run if argument.startswith("tests/")], "not slow" in marks


def test_without_arguments_the_quick_tests_of_every_folder_are_run(dev):
    runs = [without_marks(run) for run in dev.pytest_runs([], is_further=False)]
    folders = sorted(folder for folders, _ in runs for folder in folders)
    with_tests = {file.parent for file in (REPOSITORY / "tests").glob("*/test_*.py")}
    assert folders == sorted(folder.relative_to(REPOSITORY).as_posix() for folder in with_tests)
    assert all(quick for _, quick in runs)


def test_all_runs_the_same_and_the_slow_ones(dev):
    quick, every = ([without_marks(run) for run in dev.pytest_runs(arguments, False)] for arguments in ([], ["--all"]))
    assert sorted(sum((folders for folders, _ in every), [])) == sorted(sum((folders for folders, _ in quick), []))
    assert not any(is_quick for _, is_quick in every)
    assert not any("--all" in run for further in (False, True) for run in dev.pytest_runs(["--all"], further))


def test_marks_that_cost_much_are_left_out_of_the_quick_tests_as_of_all(dev, pytestconfig):
    options = pytestconfig.getini("addopts")
    for mark in options[options.index("-m") + 1].split(" and "):
        assert mark in dev.QUICK[1].split(" and ")


def test_what_is_named_is_run_slow_or_not(dev):
    for arguments in (["tests/core", "-k", "slerp"], ["-m", "package_index"]):
        assert dev.pytest_runs(arguments, is_further=False) == [arguments]
    assert dev.pytest_runs(["tests/core"], is_further=True) == [["tests/core"]]
    assert dev.pytest_runs(["-k", "slerp"], is_further=True) == [[*dev.WITH_COMFYUI, "-k", "slerp"]]


def quick_tests_in(dev, folder):
    command = [sys.executable, "-m", "pytest", folder, "--collect-only", "-q", *dev.QUICK]
    collected = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return {line.partition("::")[2] for line in collected.splitlines() if "::" in line}


def test_the_tests_of_pages_that_are_to_be_quick_are_there_by_these_names(dev):
    assert quick_tests_in(dev, "tests/browser") == import_module("morph_tests.browser.conftest").QUICK


def test_some_tests_of_workflows_in_a_running_comfyui_are_quick(dev):
    assert any("comfyui" in name for name in quick_tests_in(dev, "tests/workflows"))
