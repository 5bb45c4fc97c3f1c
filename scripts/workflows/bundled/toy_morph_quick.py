"""The quick toy morph: no LoRAs and few steps, in even steps between exact ends."""

from ..description import BLUE, CYAN, GREEN, NARROW, Group, Node, Workflow
from ..parts.inversion import Spacing, inversion, pinned
from ..parts.models import TOY_MODEL
from ..parts.morphing import picked, reschedule, sample, schedule
from ..parts.notes import note
from ..parts.pictures import BLUE_RABBIT, RED_CAT, Looks, toy_source
from ..parts.results import animation, enlarged, video
from ..parts.sampling import empty_prompt

NAME = "toy_morph_quick"
SPACING: Spacing = {"steps": 20, "scheduler": "ddim_uniform"}


def workflow() -> Workflow:
    """The most even frames of both passes are saved as an animation and a video."""
    large = enlarged("large", "frames 2")
    return [
        [note(__file__, 480), TOY_MODEL],
        [_image("A", RED_CAT), _image("B", BLUE_RABBIT)],
        [_blend("First pass: blend", " 1", schedule()), _blend("Second pass: blend", " 2", reschedule())],
        [
            sample("First pass: sample", " 1", "pinned", SPACING),
            picked(sample("Second pass: sample", " 2", "pinned", SPACING)),
        ],
        [Group("Result", CYAN, [[large, animation("saved", large.name, NAME)], [*video(large.name, NAME)]])],
    ]


def _image(end: str, looks: Looks) -> Group:
    """An image is inverted by the model as it is."""
    first, second = toy_source(end, looks)
    noise = inversion(end, "model.MODEL", spacing=SPACING)
    return Group(f"Image {end}", BLUE, [[*first, None], [*second, noise]])


def _blend(title: str, tag: str, alphas: Node) -> Group:
    """Prompts and noise are blended, and the first and the last row held to the images."""
    prompts = {"start": "A prompt", "end": "B prompt", "alphas": alphas.name}
    noise = {"start": "A noise.LATENT", "end": "B noise.LATENT", "alphas": alphas.name}
    nodes = [
        Node(f"prompts{tag}", "MorphDragBlendConditioning", prompts, width=NARROW),
        Node(f"styled{tag}", "MorphDragSlerpLatents", noise, width=NARROW),
        empty_prompt(tag),
    ]
    first = pinned(f"A pinned{tag}", "model.MODEL", "A noise", 0)
    pins = [first, pinned(f"pinned{tag}", first.name, "B noise", -1), None]
    return Group(
        title, GREEN, [[at, node, pin] for at, node, pin in zip([alphas, None, None], nodes, pins, strict=True)]
    )
