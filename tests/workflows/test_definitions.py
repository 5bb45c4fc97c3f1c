"""What the workflows' generator keeps of the pack's nodes is what ComfyUI defines."""

from morph_pack.scripts.workflows.slots import read_slots, slots_of
from morph_tests.workflows.schemas import OUR_NODES, Definitions


def test_the_generator_knows_the_pack_as_comfyui_does(definitions: Definitions) -> None:
    """ComfyUI's own nodes change from version to version; ours do not."""
    kept = {name: slots for name, slots in read_slots().items() if name in OUR_NODES}
    assert kept
    defined = {name: slots_of(definitions[name]) for name in kept}
    assert kept == defined, "start ComfyUI and run python -m scripts.workflows --definitions ADDRESS"
