"""What the front end is told about the nodes."""

import inspect
import json
from typing import Any

import nodes
import pytest
from comfy_api.latest import io

from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_pack.nodes.host import versions

NAMES = {
    "MorphDragFitImageLora": "Fit Image LoRA",
    "MorphDragLoadLoraWeights": "Load LoRA Weights",
    "MorphDragDdimInvert": "DDIM Invert",
    "MorphDragDirectInversion": "Direct Inversion",
    "MorphDragNullTextInversion": "Null-text Inversion",
    "MorphDragPromptToPrompt": "Prompt To Prompt",
    "MorphDragEditGuider": "Edit Guider",
    "MorphDragFlowEditSampler": "Flow Edit Sampler",
    "MorphDragUniEditSampler": "Uni-Edit Sampler",
    "MorphDragMatchLayouts": "Match Layouts",
    "MorphDragSlerpLatents": "Slerp Latents",
    "MorphDragLoraBlend": "LoRA Blend",
    "MorphDragAttentionKVInject": "Attention KV Inject",
    "MorphDragAdaIN": "AdaIN",
    "MorphDragRescheduleAlphas": "Reschedule Alphas",
    "MorphDragMorphReport": "Morph Report",
    "MorphDragEvenFrames": "Even Frames",
    "MorphDragAlphaSchedule": "Alpha Schedule",
    "MorphDragBlendConditioning": "Blend Conditioning",
    "MorphDragAddPicture": "Add Picture",
    "MorphDragAddKeyframe": "Add Keyframe",
    "MorphDragSequenceSchedule": "Sequence Schedule",
    "MorphDragSequenceFromValues": "Sequence From Values",
    "MorphDragBlendKeyframes": "Blend Keyframes",
    "MorphDragArrangeFrames": "Arrange Frames",
    "MorphDragDragLatentOptimize": "Drag Latent Optimize",
    "MorphDragDragOptions": "Drag Options",
    "MorphDragDragWarp": "Drag Warp",
    "MorphDragLoadToyModel": "Load Toy Model",
    "MorphDragToyDrawing": "Toy Drawing",
}


@pytest.fixture(params=NAMES)
def schema(request: pytest.FixtureRequest) -> Any:
    """A node's schema, as ComfyUI completes and validates it."""
    return NODE_CLASS_MAPPINGS[request.param].GET_SCHEMA()


def test_ids_and_display_names_never_change() -> None:
    assert {key: node.GET_SCHEMA().display_name for key, node in NODE_CLASS_MAPPINGS.items()} == NAMES


def test_it_has_the_id_name_and_category_that_it_is_registered_with(schema: Any) -> None:
    assert schema.display_name == NAMES[schema.node_id]
    assert schema.category.startswith("morph & drag/")


def test_everything_is_explained(schema: Any) -> None:
    assert schema.description
    assert [part.id for part in [*schema.inputs, *schema.outputs] if not part.tooltip] == []


def test_outputs_have_names(schema: Any) -> None:
    assert schema.outputs
    assert [output.id for output in schema.outputs if not output.display_name] == []


def test_numbers_have_a_default_within_their_range(schema: Any) -> None:
    numbers = [part for part in schema.inputs if getattr(part, "min", None) is not None]
    for number in numbers:
        assert number.min <= number.default <= number.max, number.id


def test_its_definition_is_json(schema: Any) -> None:
    definition = NODE_CLASS_MAPPINGS[schema.node_id].GET_NODE_INFO_V1()
    assert json.loads(json.dumps(definition))["name"] == schema.node_id


def test_inputs_are_the_arguments_of_execute(schema: Any) -> None:
    arguments = inspect.signature(NODE_CLASS_MAPPINGS[schema.node_id].execute).parameters
    named = [name for name, argument in arguments.items() if argument.kind != argument.VAR_KEYWORD]
    rest = [part.id for part in schema.inputs if part.id not in named]
    assert [part.id for part in schema.inputs if part.id in named] == named
    assert not rest or len(arguments) > len(named), f"execute takes no {rest}"


def test_fields_of_newer_comfyuis_are_there_where_they_are_known() -> None:
    known = inspect.signature(io.Schema).parameters
    for cls in NODE_CLASS_MAPPINGS.values():
        schema = cls.GET_SCHEMA()
        if "search_aliases" in known:
            assert schema.search_aliases, schema.node_id
    for picture in ("MorphDragDragLatentOptimize", "MorphDragDragWarp", "MorphDragMorphReport"):
        assert getattr(NODE_CLASS_MAPPINGS[picture].GET_SCHEMA(), "has_intermediate_output", True)


def test_a_field_that_no_comfyui_knows_is_an_error() -> None:
    with pytest.raises(TypeError, match="serach_aliases"):
        versions.schema(node_id="x", serach_aliases=[])


def test_stock_nodes_are_named_as_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "NODE_DISPLAY_NAME_MAPPINGS", {"SaveLoRANode": "Save LoRA Weights"})
    assert versions.stock_name("SaveLoRA", "SaveLoRANode") == "Save LoRA Weights"
    assert versions.stock_name("ImageFromBatch") == "ImageFromBatch"
