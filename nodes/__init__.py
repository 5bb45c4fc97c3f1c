"""The pack's ComfyUI nodes; this list is the only place where they are registered."""

from .alphas import AlphaSchedule, RescheduleAlphas
from .attention import AttentionKVInject
from .blend import AdaIN, BlendConditioning, SlerpLatents
from .invert import DdimInvert
from .lora import FitImageLora, LoraBlend
from .toy import LoadToyModel, ToyDrawing

NODES = [
    FitImageLora,
    DdimInvert,
    SlerpLatents,
    LoraBlend,
    AttentionKVInject,
    AdaIN,
    RescheduleAlphas,
    AlphaSchedule,
    BlendConditioning,
    LoadToyModel,
    ToyDrawing,
]

_SCHEMAS = [(node, node.define_schema()) for node in NODES]
NODE_CLASS_MAPPINGS = {schema.node_id: node for node, schema in _SCHEMAS}
NODE_DISPLAY_NAME_MAPPINGS = {schema.node_id: schema.display_name for _, schema in _SCHEMAS}
