"""Each bundled workflow has a module here, with the name of its file in example_workflows/ and its note beside it."""

from . import (
    flux_edit,
    flux_fill_drag_instant,
    flux_morph,
    qwen_image_morph,
    sd15_drag,
    sd15_drag_instant,
    sd15_morph,
    sdxl_drag_instant,
    sdxl_morph,
    toy_drag,
    toy_drag_instant,
    toy_drag_pinned,
    toy_edit,
    toy_flow_edit,
    toy_flow_morph,
    toy_morph,
    toy_morph_exact,
    toy_morph_local,
    toy_morph_matched,
    toy_morph_quick,
    toy_morph_rescheduled,
    toy_sequence,
    z_image_morph,
)

MODULES = [
    *(
        toy_morph,
        toy_morph_rescheduled,
        toy_morph_exact,
        toy_morph_quick,
        toy_morph_local,
        toy_morph_matched,
        toy_sequence,
    ),
    *(sd15_morph, sdxl_morph),
    *(
        toy_drag,
        toy_drag_pinned,
        toy_drag_instant,
        sd15_drag,
        sd15_drag_instant,
        sdxl_drag_instant,
        flux_fill_drag_instant,
        toy_edit,
    ),
    *(toy_flow_morph, toy_flow_edit, flux_morph, flux_edit, qwen_image_morph, z_image_morph),
]
WORKFLOWS = {module.__name__.rpartition(".")[2]: module.workflow for module in MODULES}  # name -> its description
