"""The core is rooms in an order: a module imports from its own room and from earlier ones, in no circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "morph_core"
ORDER = (
    *("errors", "packages", "denoise", "crop"),
    *("sampling", "models", "morphing", "attention", "lora", "dragging", "matching", "pictures", "recipes", "toy"),
)
LONGEST = 400  # lines
MODULES = {path.relative_to(CORE).with_suffix("").parts: path for path in CORE.rglob("*.py") if path.stem != "__init__"}


def imported(module: tuple[str, ...], path: Path) -> set[tuple[str, ...]]:
    """The core's modules that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = (*module[: len(module) - node.level], *filter(None, (node.module or "").split(".")))
            names = [(*package, alias.name) for alias in node.names]
            found |= {name if name in MODULES else package for name in names}
    return found & MODULES.keys()


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_no_module_imports_from_a_later_room(module: tuple[str, ...]) -> None:
    later = ORDER[ORDER.index(module[0]) + 1 :]
    assert not [".".join(other) for other in imported(module, MODULES[module]) if other[0] in later]


def test_no_module_imports_itself_through_others() -> None:
    arrows = {module: imported(module, path) for module, path in MODULES.items()}
    while leaves := [module for module, others in arrows.items() if not others & arrows.keys()]:
        for leaf in leaves:
            del arrows[leaf]
    assert not arrows


def test_files_can_be_read_in_one_sitting() -> None:
    folders = ("morph_core", "nodes", "js", "scripts", "benchmarks", "tests")
    files = [path for folder in folders for kind in ("py", "js", "mjs") for path in (ROOT / folder).rglob(f"*.{kind}")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {path: lines for path, lines in lengths.items() if lines > LONGEST}


def test_each_room_is_named_in_the_order() -> None:
    assert {module[0] for module in MODULES} == set(ORDER)
