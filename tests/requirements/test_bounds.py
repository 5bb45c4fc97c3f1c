"""The bounds are said in three places, for installing into ComfyUI, at use, and for the library: they agree."""

import ast
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

from morph_pack.morph_core.packages import BOUNDS, COMES_WITH_COMFYUI
from morph_tests.requirements.installing import requirement_lines

ROOT = Path(__file__).resolve().parents[2]
FROM_COMFYUI = {"torch", "numpy", "pillow", "safetensors", "scipy"}
FILES = ("requirements.txt", "requirements-library.txt")
HERE = (f"{sys.version_info[0]}.{sys.version_info[1]}", sys.platform)


def required(*files):
    requirements = [Requirement(line) for file in files for line in requirement_lines(ROOT / file, HERE)]
    assert len({requirement.name for requirement in requirements}) == len(requirements)
    return {requirement.name: requirement.specifier for requirement in requirements}


def bounded():
    found = {name: specifier for name, specifier in required(*FILES).items() if specifier}
    assert found
    return found


def of_the_library():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")  # tomllib is not in Python 3.10
    listed = re.search(r"^dependencies = (\[.*?^\])", text, re.MULTILINE | re.DOTALL)
    requirements = [Requirement(line) for line in ast.literal_eval(listed[1])]
    return {requirement.name: requirement.specifier for requirement in requirements}


def test_comfyuis_packages_are_named_without_bounds():
    found = required("requirements.txt")
    assert found.keys() == {"lpips", *FROM_COMFYUI}
    assert {name for name, specifier in found.items() if not specifier} == FROM_COMFYUI


def test_what_is_said_at_use_is_what_is_installed():
    ours = bounded()
    assert {name: bound for name, bound in BOUNDS.items() if name not in COMES_WITH_COMFYUI} == {
        name: ",".join(sorted(str(specifier).split(","), reverse=True)) for name, specifier in ours.items()
    }


def test_the_library_takes_the_same_packages_from_the_same_versions_on():
    library = of_the_library()
    assert library.keys() == required(*FILES).keys()
    assert not any("<" in str(specifier) or "==" in str(specifier) for specifier in library.values())
    for name in BOUNDS.keys() & library.keys():
        assert str(library[name]) == BOUNDS[name].split(",")[0]


def test_a_package_with_a_bound_has_the_same_one_in_both_lists():
    """For the nodes (requirements.txt and requirements-library.txt) and for the library (pyproject.toml)."""
    library = of_the_library()
    lowest = {name: str(next(one for one in bound if one.operator == ">=")) for name, bound in bounded().items()}
    assert lowest == {name: str(library[name]) for name in lowest}


def imports_in(node, guarded=False):
    """(package, whether inside `with needed(…)`) of every import that is run, not only read by type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name.partition(".")[0], guarded) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield child.module.partition(".")[0], guarded
        is_guard = isinstance(child, ast.With) and ast.unparse(child.items[0].context_expr).startswith("needed(")
        yield from imports_in(child, guarded or is_guard)


def test_every_package_that_may_be_missing_is_imported_where_that_is_said():
    files = [*(ROOT / "morph_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py"), ROOT / "__init__.py"]
    found = [pair for file in files for pair in imports_in(ast.parse(file.read_text(encoding="utf-8")))]
    ours = [pair for pair in found if pair[0] in {*BOUNDS, "peft", "transformers", "accelerate"} - {"torch"}]
    assert {name for name, _ in ours} == {"diffusers", "lpips", "torchvision"}
    assert all(guarded for _, guarded in ours)
