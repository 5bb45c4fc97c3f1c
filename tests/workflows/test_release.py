"""Nothing is published by accident: the release check, the workflow that runs it, and what the archive leaves out."""

import subprocess

import pytest

from morph_tests.comfy_host import REPOSITORY

ADDRESS = "https://host/owner/name"
OURS = ("__init__.py", "LICENSE", "README.md", "example_workflows/", "js/", "morph_core/", "nodes/", "requirements.txt")


@pytest.fixture
def missing():
    pytest.importorskip("tomllib", reason="the release check needs Python 3.11 or newer")
    from morph_pack.scripts.check_release import missing

    return missing


@pytest.fixture
def pyproject():
    return (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def filled_in(pyproject):
    """What docs/release.md says to do: the lines stand there, without their values."""
    lines = {
        "# [project.urls]": "[project.urls]",
        '# Repository = "…"': f'Repository = "{ADDRESS}"',
        '# PublisherId = "…"': 'PublisherId = "someone"',
    }
    for line, instead in lines.items():
        assert pyproject.count(line) == 1
        pyproject = pyproject.replace(line, instead)
    return pyproject


def version_of(pyproject):
    import tomllib

    return tomllib.loads(pyproject)["project"]["version"]


def test_a_release_that_is_filled_in_lacks_nothing(missing, pyproject):
    version = version_of(pyproject)
    assert missing(f"v{version}", ADDRESS, filled_in(pyproject), f"## [{version}] - 2030-01-01") == []


@pytest.mark.parametrize("tag", ["v9.9.9", "v", "0.1.0", "v0.1"])
def test_a_tag_that_is_not_the_version_is_refused(missing, pyproject, tag):
    version = version_of(pyproject)
    found = missing(tag, ADDRESS, filled_in(pyproject), f"## [{version}]")
    assert len(found) == 1 and f"tag is {tag}," in found[0] and f"tag v{version}" in found[0]


def test_everything_else_that_is_missing_is_named(missing, pyproject):
    version = version_of(pyproject)
    for empty in (pyproject, pyproject.replace("# PublisherId", "PublisherId")):
        found = missing(f"v{version}", ADDRESS, empty, "## [Unreleased]")
        assert ["Repository" in found[0], "PublisherId" in found[1], "CHANGELOG" in found[2]] == [True] * len(found)


def test_a_repository_that_is_elsewhere_is_refused(missing, pyproject):
    version = version_of(pyproject)
    found = missing(f"v{version}", "https://host/another/name", filled_in(pyproject), f"## [{version}]")
    assert len(found) == 1 and ADDRESS in found[0] and "https://host/another/name" in found[0]


def test_publishing_waits_for_a_tag_the_check_and_the_tests():
    yaml = pytest.importorskip("yaml")
    publish, test = (
        yaml.safe_load((REPOSITORY / ".github" / "workflows" / name).read_text(encoding="utf-8"))
        for name in ("publish.yml", "test.yml")
    )
    assert publish[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert publish["jobs"]["registry"]["needs"] == ["ready", "test"]
    assert publish["jobs"]["test"]["uses"] == "./.github/workflows/test.yml" and "workflow_call" in test[True]
    assert any("check_release.py" in step.get("run", "") for step in publish["jobs"]["ready"]["steps"])


def test_the_archive_has_all_that_runs_and_nothing_else():
    listed = ["git", "ls-files", "--cached", "--ignored", "--exclude-from=.comfyignore"]
    run = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("not a git checkout, so nothing says which files are ours")
    left_out = run.stdout.splitlines()
    assert [file for file in left_out if file.startswith(OURS)] == []
    assert {file.split("/")[0] for file in left_out} >= {".ci", ".github", "benchmarks", "docs", "scripts", "tests"}
