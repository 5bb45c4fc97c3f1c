"""The pack's ComfyUI nodes; this list is the only place where they are registered."""

from .alphas import AlphaSchedule, EvenFrames, RescheduleAlphas
from .attention import AttentionKVInject
from .blend import AdaIN, BlendConditioning, SlerpLatents
from .direct_inversion import DirectInversion
from .drag import DragLatentOptimize, DragOptions
from .drag_warp import DragWarp
from .edit_guider import EditGuider
from .flow_edit import FlowEditSampler
from .invert import DdimInvert
from .keyframes import AddKeyframe, AddPicture, BlendKeyframes
from .lora import FitImageLora, LoadLoraWeights, LoraBlend
from .match_layouts import MatchLayouts
from .morph_report import MorphReport
from .null_text import NullTextInversion
from .prompt_to_prompt import PromptToPrompt
from .sequence import ArrangeFrames, SequenceFromValues, SequenceSchedule
from .toy import LoadToyModel, ToyDrawing
from .uni_edit import UniEditSampler

NODES = [
    FitImageLora,
    LoadLoraWeights,
    DdimInvert,
    DirectInversion,
    NullTextInversion,
    PromptToPrompt,
    EditGuider,
    FlowEditSampler,
    UniEditSampler,
    MatchLayouts,
    SlerpLatents,
    LoraBlend,
    AttentionKVInject,
    AdaIN,
    RescheduleAlphas,
    EvenFrames,
    MorphReport,
    AlphaSchedule,
    BlendConditioning,
    AddPicture,
    AddKeyframe,
    SequenceSchedule,
    SequenceFromValues,
    BlendKeyframes,
    ArrangeFrames,
    DragLatentOptimize,
    DragOptions,
    DragWarp,
    LoadToyModel,
    ToyDrawing,
]

# No schema is asked for here: ComfyUI does, node by node, so that a broken one costs one node and not the pack.
NODE_CLASS_MAPPINGS = {f"MorphDrag{node.__name__}": node for node in NODES}
