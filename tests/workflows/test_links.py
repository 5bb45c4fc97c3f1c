"""Every file that a page of documentation links to is there, and so is every repository on GitHub that we name."""

import re
import subprocess

import pytest

from morph_tests.comfy_host import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("js/docs/*.md")])
ON_GITHUB = "(github(usercontent)?\\.com[/:]|uses: |repository: )"  # an address, or what a workflow has for one
OWNER_AND_NAME = "[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9_.-]*[A-Za-z0-9_-]"
EXIST = {
    "actions/checkout",
    "actions/setup-python",
    "astral-sh/ruff-pre-commit",
    "comfyanonymous/ComfyUI",
    "Comfy-Org/publish-node-action",
    "Kevin-thu/DiffMorpher",
    "Yujun-Shi/DragDiffusion",
    "zewei-Zhang/GoodDrag",
}
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_its_links_lead_to_files(page) -> None:
    linked = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in linked if not (page.parent / link).is_file()] == []


def test_only_repositories_that_exist_are_named() -> None:
    """Whoever registers an address that we made up could ship anything to our users."""
    listed = ["git", "grep", "-IohE", ON_GITHUB + OWNER_AND_NAME]
    run = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True)
    if run.returncode > 1:
        pytest.skip("not a git checkout, so nothing says which files are ours")
    named = {re.sub(f"^{ON_GITHUB}", "", line).removesuffix(".git") for line in run.stdout.splitlines()}
    assert named - EXIST == set()
