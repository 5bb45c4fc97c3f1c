"""Each bundled workflow has a module here, with the name of its file in example_workflows/ and its note beside it."""

from . import (
    sd15_drag,
    sd15_morph,
    sdxl_morph,
    toy_drag,
    toy_drag_pinned,
    toy_edit,
    toy_morph,
    toy_morph_exact,
    toy_morph_rescheduled,
)

MODULES = [
    *(toy_morph, toy_morph_rescheduled, toy_morph_exact, sd15_morph, sdxl_morph),
    *(toy_drag, toy_drag_pinned, sd15_drag, toy_edit),
]
WORKFLOWS = {module.__name__.rpartition(".")[2]: module.workflow for module in MODULES}  # name -> its description
