"""A sequence leads through any number of pictures, whose nodes stand there once and run for each of a list."""

from ..description import BLUE, GREEN, NARROW, WIDE, Group, Node
from .inversion import SPACING
from .pictures import Looks


def pictures(looks: list[Looks]) -> Group:
    """Each Toy Drawing is added to the lists of those before it."""
    rows: list[list[Node | None]] = []
    for number, each in enumerate(looks, start=1):
        drawing = Node(f"picture {number}", "MorphDragToyDrawing", {}, each, room=200)
        links = {"image": drawing.name, "prompt": f"{drawing.name}.caption"}
        if number > 1:
            links |= {"images": f"pictures {number - 1}", "prompts": f"pictures {number - 1}.prompts"}
        rows.append([drawing, Node(f"pictures {number}", "MorphDragAddPicture", links, width=NARROW)])
    return Group("Pictures", BLUE, rows)


def keyframes(last: str, steps: int, learning_rate: float) -> Group:
    """What is known of each picture becomes a keyframe; `last`: the Add Picture that has all."""
    known = {"model": "model.MODEL", "positive": "prompt", "latent": "latent"}
    fit = {"rank": 16, "steps": steps, "learning_rate": learning_rate, "seed": 0}
    invert = {"model": "known", "positive": "prompt", "latent_image": "latent"}
    rows = [
        [
            Node("prompt", "CLIPTextEncode", {"clip": "model.CLIP", "text": f"{last}.prompts"}, room=30),
            Node("latent", "VAEEncode", {"pixels": last, "vae": "model.VAE"}, width=NARROW),
        ],
        [
            Node("LoRA", "MorphDragFitImageLora", known, fit),
            Node("known", "LoraModelLoader", {"model": "model.MODEL", "lora": "LoRA"}),
        ],
        [
            Node("inverted", "MorphDragDdimInvert", invert, {**SPACING, "start_at_step": 0}),
            Node(
                "keyframes",
                "MorphDragAddKeyframe",
                {"noise": "inverted", "positive": "prompt", "lora": "LoRA"},
                width=NARROW,
            ),
        ],
    ]
    return Group("All pictures: learn and invert", GREEN, rows)


def blend(frames: str, easings: str, holds: str, closed: bool) -> Group:
    """Sequence Schedule says when each picture is there, Blend Keyframes makes the batch to sample."""
    timing = {"frames": frames, "easings": easings, "holds": holds, "closed": closed}
    links = {"model": "model.MODEL", "keyframes": "keyframes", "alphas": "alphas"}
    rows = [
        [Node("alphas", "MorphDragSequenceSchedule", {"keyframes": "keyframes"}, timing, WIDE)],
        [Node("blended", "MorphDragBlendKeyframes", links, {"frames_per_batch": 0}, WIDE)],
        [Node("empty prompt", "CLIPTextEncode", {"clip": "model.CLIP"}, {"text": ""}, room=40)],
    ]
    return Group("Sequence", GREEN, rows)
