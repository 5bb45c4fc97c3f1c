"""A morph blends what is known of images "A" and "B" by alphas, and samples all frames at once.

`tag` ends the names of a pass's nodes where there are several passes.
"""

from dataclasses import replace

from ..description import GREEN, NARROW, RED, Group, Node, Workflow
from .inversion import SPACING, Spacing, inverted_image
from .pictures import BLUE_RABBIT, LOW_LEFT_CAT, RED_CAT, RIGHT_MOUSE, toy_source
from .sampling import decoded, empty_prompt, ksampler

ENDS = (("start", "A"), ("end", "B"))
MATCHED = (("", "noise"), ("_image", "latent"), ("_positive", "prompt"), ("_picture", "picture"))  # inputs, and nodes
TOY_ENDS = [
    inverted_image("A", toy_source("A", RED_CAT), 100, 0.001),
    inverted_image("B", toy_source("B", BLUE_RABBIT), 100, 0.001),
]

APART_ENDS = [
    inverted_image("A", toy_source("A", LOW_LEFT_CAT), 100, 0.001),
    inverted_image("B", toy_source("B", RIGHT_MOUSE), 100, 0.001),
]


def schedule() -> Node:
    """Alpha Schedule gives 16 frames equal steps of alpha."""
    return Node("alphas", "MorphDragAlphaSchedule", {}, {"frames": 16, "easing": "linear"})


def reschedule() -> Node:
    """Reschedule Alphas measures the first pass, shows its plot by itself, and puts frames where steps are long."""
    links = {"images": "frames 1", "alphas": "alphas"}
    return Node("even alphas", "MorphDragRescheduleAlphas", links, {"method": "long steps"}, 400, room=280, spans=True)


def report(start: str, end: str) -> Node:
    """Morph Report shows both passes as they were measured; `start`, `end`: the pictures they lead from and to."""
    passes = {"images": "frames 2.images", "alphas": "frames 2.ALPHAS", "first_pass": "frames 1"}
    links = {**passes, "start_image": start, "end_image": end}
    return Node("report", "MorphDragMorphReport", links, {}, 480, room=460)


def blend(
    title: str, tag: str, alphas: Node, frames_per_batch: int = 0, noise: str = "LATENT", mask: str = ""
) -> Group:
    """A pass samples frames from blended noise, with blended prompts, by a model with blended LoRAs.

    noise: as what inverted noise is handed on. mask: where the morph takes place; none: everywhere.
    """
    where = {"mask": mask} if mask else {}
    rows = [
        [_loras(tag, alphas.name), _injection(tag, alphas.name, frames_per_batch, where)],
        [_prompts(tag, alphas.name), empty_prompt(tag) if noise == "LATENT" else None],
        _noise(tag, alphas.name, noise, where),
    ]
    first = [alphas, None, None] if alphas.spans else [None, alphas, None]
    return Group(title, GREEN, [[node, *row] for node, row in zip(first, rows, strict=True)])


def matched_blend(alphas: Node) -> Group:
    """Match Layouts leads both noises, and what attention sees of the ends, to each frame's layout."""
    links = {f"{name}{what}": f"{end} {of}" for name, end in ENDS for what, of in MATCHED}
    layouts = Node(
        "layouts", "MorphDragMatchLayouts", {"model": "model.MODEL", **links, "alphas": alphas.name}, {}, 340, 240
    )
    injection = _injection("", alphas.name, 0, {"matches": "layouts.MATCHES"})
    slerp, styled = _noise("", alphas.name, "LATENT", {})
    slerp = replace(slerp, links={"start": "layouts.start LATENT", "end": "layouts.end LATENT", "alphas": alphas.name})
    rows = [
        [alphas, _loras("", alphas.name), injection],
        [replace(layouts, spans=True), _prompts("", alphas.name), empty_prompt()],
        [None, slerp, styled],
    ]
    return Group("Match and blend", GREEN, rows)


def _loras(tag: str, alphas: str) -> Node:
    """LoRA Blend gives each frame its share of both LoRAs."""
    links = {"model": "model.MODEL", "start": "A LoRA", "end": "B LoRA", "alphas": alphas}
    return Node(f"LoRAs{tag}", "MorphDragLoraBlend", links, width=NARROW)


def _injection(tag: str, alphas: str, frames_per_batch: int, where: dict[str, str]) -> Node:
    """Attention KV Inject gives each frame its share of the ends' keys and values, as published."""
    links = {"model": f"LoRAs{tag}", "alphas": alphas, **where}
    numbers = {"strength": 1.0, "end_percent": 0.6, "blocks": "up blocks", "frames_per_batch": frames_per_batch}
    return Node(f"patched{tag}", "MorphDragAttentionKVInject", links, numbers)


def _prompts(tag: str, alphas: str) -> Node:
    """Blend Conditioning gives each frame its share of both prompts."""
    links = {"start": "A prompt", "end": "B prompt", "alphas": alphas}
    return Node(f"prompts{tag}", "MorphDragBlendConditioning", links, width=NARROW)


def _noise(tag: str, alphas: str, noise: str, where: dict[str, str]) -> list[Node]:
    """Slerp Latents blends the two noises, and AdaIN their statistics."""
    ends = {"start": f"A noise.{noise}", "end": f"B noise.{noise}", "alphas": alphas, **where}
    blended = Node(f"noise{tag}", "MorphDragSlerpLatents", ends, width=NARROW)
    links = {"frames": f"{blended.name}.{noise}", **ends}
    return [blended, Node(f"styled{tag}", "MorphDragAdaIN", links, {"strength": 1.0})]


def sample(title: str, tag: str, model: str = "patched", spacing: Spacing = SPACING) -> Group:
    """One KSampler run samples all frames of a pass, in the steps of the inversions."""
    prompts = {"positive": f"prompts{tag}", "negative": f"empty prompt{tag}"}
    links = {"model": f"{model}{tag}", **prompts, "latent_image": f"styled{tag}"}
    sampler = ksampler(f"latents{tag}", links, **spacing)
    return Group(title, RED, [[sampler, decoded(f"frames{tag}", sampler.name)]])


def two_passes(first: Group, second: Group, frames_per_batch: int = 0) -> Workflow:
    """The second pass, from which the even steps come, stands below the first, and each before its result."""
    return [
        [
            blend("First pass: blend", " 1", schedule(), frames_per_batch),
            blend("Second pass: blend", " 2", reschedule(), frames_per_batch),
        ],
        [sample("First pass: sample", " 1"), picked(sample("Second pass: sample", " 2"))],
        [first, second],
    ]


def picked(second: Group) -> Group:
    """Even Frames picks the most even of both passes."""
    [[sampler, frames]] = second.rows
    assert frames
    decoded_frames = replace(frames, name="sampled 2")
    passes = {
        "images": decoded_frames.name,
        "alphas": "even alphas",
        "first_pass": "frames 1",
        "first_alphas": "alphas",
    }
    return replace(second, rows=[[sampler, decoded_frames], [None, Node("frames 2", "MorphDragEvenFrames", passes)]])
