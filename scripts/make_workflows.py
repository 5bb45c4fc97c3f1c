"""Write the workflows in example_workflows/ from the descriptions below.

    python scripts/make_workflows.py [--server http://127.0.0.1:8188]

Start ComfyUI with this pack first: slots, their types and the order of widgets are asked of its /object_info. Use the
oldest ComfyUI that pyproject.toml allows; newer ones open what it makes. Then open every workflow, look at it and run
it. After a change that shows, renew the thumbnail beside the file: a .jpg of the same name.

A workflow is a row of columns of groups, and a group is a grid of nodes; positions follow from that. Columns of two
groups make two rows, a group that is alone in its column stands between them.
"""

import argparse
import json
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "example_workflows"
PACK, PACK_PREFIX = "morph-and-drag", "MorphDrag"
GAP, TITLE, GROUP_TITLE = 40, 30, 50  # pixels
GROWTH = 45  # what "Nodes 2.0" adds to a node's height
NARROW, WIDE = 230, 315  # of nodes without widgets, no less than in "Nodes 2.0", and of those with long values

Definitions = dict[str, dict[str, Any]]


# What a workflow is made of


@dataclass(frozen=True)
class Node:
    """`links`: input -> the name of a node (its first output) or "name.OUTPUT". `widgets`: values other than defaults.

    `room`: height beyond what slots and widgets take, for text or a picture. `spans`: it may reach into the rows below.
    `model`: address of the checkpoint, which the front end offers to download where it is missing.
    """

    name: str
    type: str
    links: dict[str, str] = field(default_factory=dict)
    widgets: dict[str, Any] = field(default_factory=dict)
    width: int = 240
    room: int = 0
    spans: bool = False
    title: str = ""
    model: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A published model: the file, where it is, what it is called and the pixels a side that it was trained on."""

    file: str
    address: str
    kind: str
    side: int

    def node(self) -> Node:
        return Node("model", "CheckpointLoaderSimple", {}, {"ckpt_name": self.file}, 420, model=self.address)


@dataclass(frozen=True)
class Group:
    """Nodes in rows; None leaves a cell empty. Without a title no frame is drawn."""

    title: str
    colour: str
    rows: Sequence[Sequence[Node | None]]

    def nodes(self) -> Iterator[Node]:
        return (node for row in self.rows for node in row if node)


Workflow = list[list[Group]]  # columns


# Parts that the workflows share


SAMPLER = {
    **{"add_noise": "disable", "noise_seed": 0, "steps": 50, "cfg": 1.0, "sampler_name": "ddim"},
    **{"scheduler": "ddim_uniform", "return_with_leftover_noise": "disable"},
}
BLUE, GREEN, RED, YELLOW, CYAN = "#88A", "#8A8", "#A88", "#b58b2a", "#8AA"
FPS = 8.0

Looks = dict[str, Any]  # what a Toy Drawing is told

RED_CAT: Looks = {"animal": "cat", "colour": "red", "mood": "happy", "background": "mint", "seed": 1}
BLUE_RABBIT: Looks = {"animal": "rabbit", "colour": "blue", "mood": "surprised", "background": "sand", "seed": 2}
PURPLE_RABBIT: Looks = {"animal": "rabbit", "colour": "purple", "mood": "calm", "background": "mint", "seed": 7}


def note(text: str, height: int) -> Group:
    return Group(
        "", "", [[Node("note", "MarkdownNote", {}, {"text": text}, 460, room=height, title="How to use this workflow")]]
    )


def animation(name: str, images: str, prefix: str, lossless: bool = True) -> Node:
    widgets = {"filename_prefix": f"{PACK}/{prefix}", "fps": FPS, "lossless": lossless, "quality": 90}
    return Node(name, "SaveAnimatedWEBP", {"images": images}, widgets, 360, room=360)


def video(images: str, prefix: str) -> tuple[Node, Node]:
    """The frames as a video, and the file it is saved to."""
    made = Node("video", "CreateVideo", {"images": images}, {"fps": FPS}, NARROW)
    saved = {"filename_prefix": f"{PACK}/{prefix}"}
    return made, Node("saved video", "SaveVideo", {"video": made.name}, saved, 360, room=360)


def toy_source(end: str, looks: Looks) -> list[list[Node | None]]:
    """The first two columns of two rows: the drawing and its caption, then its latent."""
    picture = f"{end} picture"
    return [
        [
            Node(picture, "MorphDragToyDrawing", {}, looks, room=200),
            Node(f"{end} prompt", "CLIPTextEncode", {"clip": "model.CLIP", "text": f"{picture}.caption"}, room=30),
        ],
        [None, _latent(end, picture)],
    ]


def large_source(end: str, looks: Looks, side: int) -> list[list[Node | None]]:
    """As `toy_source`, for a model of `side` pixels that knows many words: the prompt says that it is a drawing."""
    picture, prompt = f"{end} picture", "a drawing of a {mood} {colour} {animal}'s face".format_map(looks)
    return [
        [
            Node(picture, "MorphDragToyDrawing", {}, {**looks, "size": side}, room=200),
            Node(f"{end} prompt", "CLIPTextEncode", {"clip": "model.CLIP"}, {"text": prompt}, room=80),
        ],
        [None, _latent(end, picture)],
    ]


def replaceable_source(end: str, looks: Looks, side: int) -> list[list[Node | None]]:
    """As `large_source`, with one place to connect any other picture to, which is cropped to the model's size."""
    (picture, prompt), _ = large_source(end, looks, side)
    square, crop = f"{end} square", {"upscale_method": "lanczos", "width": side, "height": side, "crop": "center"}
    links = {"image": f"{end} picture"}
    return [
        [picture, prompt],
        [Node(square, "ImageScale", links, crop, 280, title=f"Image {end}: connect yours here"), _latent(end, square)],
    ]


def _latent(end: str, picture: str) -> Node:
    return Node(f"{end} latent", "VAEEncode", {"pixels": picture, "vae": "model.VAE"}, width=NARROW)


def image(
    end: str,
    source: list[list[Node | None]],
    steps: int,
    learning_rate: float,
    start: int = 0,
    title: str = "",
    large: bool = False,
) -> Group:
    """An image, its LoRA, and the noise that leads back to it. start: the step to invert to. large: save memory."""
    known = {"positive": f"{end} prompt", "latent": f"{end} latent"}
    fit = {"rank": 16, "steps": steps, "learning_rate": learning_rate, "seed": 0, "gradient_checkpointing": large}
    lora = Node(f"{end} LoRA", "MorphDragFitImageLora", {"model": "model.MODEL", **known}, fit)
    model = Node(f"{end} model", "LoraModelLoader", {"model": "model.MODEL", "lora": lora.name})
    noise = Node(
        f"{end} noise",
        "MorphDragDdimInvert",
        {"model": model.name, "positive": f"{end} prompt", "latent_image": f"{end} latent"},
        {"steps": 50, "scheduler": "ddim_uniform", "start_at_step": start},
    )
    first, second = source
    return Group(title or f"Image {end}", BLUE, [[*first, lora, model], [*second, None, noise]])


def schedule() -> Node:
    return Node("alphas", "MorphDragAlphaSchedule", {}, {"frames": 16, "easing": "linear"})


def reschedule() -> Node:
    """Shows its plot by itself."""
    links = {"images": "frames 1", "alphas": "alphas"}
    return Node("even alphas", "MorphDragRescheduleAlphas", links, {}, 400, room=280, spans=True)


def blend(title: str, tag: str, alphas: Node, frames_per_batch: int = 0) -> Group:
    """What the frames of a pass start from and are told. tag: ends the names of its nodes."""
    ends = {"start": "A noise", "end": "B noise", "alphas": alphas.name}
    loras = {"model": "model.MODEL", "start": "A LoRA", "end": "B LoRA", "alphas": alphas.name}
    prompts = {"start": "A prompt", "end": "B prompt", "alphas": alphas.name}
    patch = {"model": f"LoRAs{tag}", "alphas": alphas.name}
    inject = {"strength": 1.0, "end_percent": 0.6, "blocks": "up blocks", "frames_per_batch": frames_per_batch}
    rows = [
        [
            Node(f"LoRAs{tag}", "MorphDragLoraBlend", loras, width=NARROW),
            Node(f"patched{tag}", "MorphDragAttentionKVInject", patch, inject),
        ],
        [
            Node(f"prompts{tag}", "MorphDragBlendConditioning", prompts, width=NARROW),
            empty_prompt(tag),
        ],
        [
            Node(f"noise{tag}", "MorphDragSlerpLatents", ends, width=NARROW),
            Node(f"styled{tag}", "MorphDragAdaIN", {"frames": f"noise{tag}", **ends}, {"strength": 1.0}),
        ],
    ]
    first = [alphas, None, None] if alphas.spans else [None, alphas, None]
    return Group(title, GREEN, [[node, *row] for node, row in zip(first, rows, strict=True)])


def sample(title: str, tag: str, model: str = "patched") -> Group:
    links = {"model": f"{model}{tag}", "positive": f"prompts{tag}", "negative": f"empty prompt{tag}"}
    widgets = {**SAMPLER, "start_at_step": 0, "end_at_step": 10000}
    sampler = Node(f"latents{tag}", "KSamplerAdvanced", {**links, "latent_image": f"styled{tag}"}, widgets, WIDE)
    decode = Node(f"frames{tag}", "VAEDecode", {"samples": f"latents{tag}", "vae": "model.VAE"}, width=NARROW)
    return Group(title, RED, [[sampler, decode]])


def enlarged(name: str, images: str) -> Node:
    return Node(name, "ImageScaleBy", {"image": images}, {"upscale_method": "bicubic", "scale_by": 4.0})


def drag(name: str, points: list[list[float]], links: dict[str, str], start: int, objective: str) -> Node:
    """Drag Latent Optimize on the image "D". points: [handle x, y, target x, y] as shares of the image."""
    pairs = [{"handle": pair[:2], "target": pair[2:]} for pair in points]
    widgets = {
        "points": json.dumps({"v": 1, "points": pairs}),
        "steps": 50,
        "start_at_step": start,
        "objective": objective,
    }
    known = {"model": "D model", "positive": "D prompt", "latent": "D noise", "image": "D picture"}
    return Node(name, "MorphDragDragLatentOptimize", {**known, **links}, widgets, 340, room=560)


def reference() -> Node:
    """The published reference control, for all drags."""
    widgets = {"strength": 1.0, "end_percent": 1.0, "blocks": "last two up blocks"}
    return Node("referring", "MorphDragAttentionKVInject", {"model": "D model"}, widgets)


def pinned(name: str, model: str, trajectory: str, row: int, mask: str = "") -> Node:
    """A row held to its inversion, outside a mask if one is named."""
    links = {"model": model, "trajectory": f"{trajectory}.TRAJECTORY", **({"mask": mask} if mask else {})}
    return Node(name, "MorphDragDirectInversion", links, {"row": row})


def sample_drag(dragged: str, model: str = "referring") -> list[Node]:
    """The original and the dragged image of a drag, sampled from where it left off."""
    links = {"model": model, "positive": "D prompt", "negative": "empty prompt", "latent_image": dragged}
    sampler = Node(
        f"{dragged} latents",
        "KSamplerAdvanced",
        {**links, "start_at_step": f"{dragged}.start_at_step"},
        {**SAMPLER, "end_at_step": 10000},
        WIDE,
    )
    decode = {"samples": sampler.name, "vae": "model.VAE"}
    return [sampler, Node(f"{dragged} images", "VAEDecode", decode, width=NARROW)]


def empty_prompt(tag: str = "") -> Node:
    return Node(f"empty prompt{tag}", "CLIPTextEncode", {"clip": "model.CLIP"}, room=30, title="Empty prompt")


def toy_mask(name: str, left: int, top: int, width: int, height: int) -> list[Node]:
    """A white rectangle on black."""
    white = Node(f"{name} white", "SolidMask", {}, {"value": 1.0, "width": width, "height": height}, NARROW)
    links = {"destination": "black", "source": white.name}
    placed = Node(f"{name} mask", "MaskComposite", links, {"x": left, "y": top, "operation": "add"}, NARROW)
    return [white, placed]


# The workflows


TOY_MODEL = Group("Model", YELLOW, [[Node("model", "MorphDragLoadToyModel", width=NARROW)]])
TOY_ENDS = [
    image("A", toy_source("A", RED_CAT), 100, 0.001),
    image("B", toy_source("B", BLUE_RABBIT), 100, 0.001),
]

TOY_MORPH_NOTE = """\
## Morph one drawing into another

Press **Run**. Nothing needs to be downloaded: the model is a tiny Stable Diffusion that comes with Morph & Drag.

### What happens

1. **Image A**, **Image B**: a small LoRA learns each image, and DDIM Invert finds the noise that leads back to it.
2. **Blend**: Alpha Schedule gives every frame its place between A (0) and B (1). LoRAs, prompts and noise are blended \
by it, one row of a batch for each frame.
3. **Sample**: one KSampler run draws all frames.
4. **Result**: the frames as an animation (WebP) and as a video (MP4).

### What to change

- **Toy Drawing**: animal, colour, mood, background and seed. The prompt follows by itself.
- **Alpha Schedule**: the number of frames.
- **Attention KV Inject** and **AdaIN**: set a strength to 0 to see what it does.
- **Fit Image LoRA**: more steps bring the ends closer to the images.

### What must agree

*steps* and *scheduler* of both DDIM Invert and of KSampler. KSampler keeps *cfg* 1, *add_noise* disable and the \
sampler ddim: otherwise the first and the last frame are no longer the images.
"""

RESCHEDULED_NOTE = """\
## A morph in even steps

Press **Run**. Nothing needs to be downloaded: the model is a tiny Stable Diffusion that comes with Morph & Drag.

### What happens

1. **Image A**, **Image B** and the **first pass** are those of the workflow *toy_morph*.
2. Equal steps of alpha are not equal to the eye: a morph may stand still and then jump. **Reschedule Alphas** \
measures how much each frame differs from the one before. The plot shows the way travelled; a straight line is even.
3. The **second pass** samples the morph again with the new alphas. It is saved as a video (MP4), too.

### What to change

- **Toy Drawing**: animal, colour, mood, background and seed. The prompt follows by itself.
- **Alpha Schedule**: the number of frames measured. More frames measure more exactly.
- **Reschedule Alphas**: *frames* is the number of frames of the second pass, 0 for as many as in the first.

### What must agree

*steps* and *scheduler* of both DDIM Invert and of both KSamplers, and everything else of the two passes. KSampler \
keeps *cfg* 1, *add_noise* disable and the sampler ddim.
"""

SD15 = Checkpoint(
    "v1-5-pruned-emaonly-fp16.safetensors",
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
    "Stable Diffusion 1.5",
    512,
)
SDXL = Checkpoint(
    "sd_xl_base_1.0.safetensors",
    "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    "SDXL",
    1024,
)
LARGE_MORPH_NOTE = """\
## Morph one image into another

### Before the first run

- Put [FILE](ADDRESS) into *models/checkpoints*, or choose any other KIND model.

Then press **Run**: one drawing turns into another. The LoRAs are fitted once; a later run repeats only what comes \
after your change. To keep one for another day, connect Save LoRA Weights, and Load LoRA Weights in place of Fit Image \
LoRA.

### Your own images

- Add two **Load Image** nodes. Connect one to *Image A: connect yours here* and the other to *Image B: connect yours \
here*, in place of the Toy Drawings. There they are cropped to SIDE x SIDE pixels.
- They morph best when they show similar things at a similar place.
- Describe each image in its **CLIP Text Encode**. If one prompt fits both images, write it twice.

### What happens

1. **Image A**, **Image B**: a LoRA learns each image (200 steps, as published), and DDIM Invert finds the noise that \
leads back to it.
2. **First pass**: 16 frames with LoRAs, prompts and noise blended.
3. **Reschedule Alphas** measures how much each frame differs from the one before. The plot shows the way travelled; a \
straight line is even.
4. **Second pass**: the frames again, in steps that look equally large, as an animation (WebP) and as a video (MP4).

### What to change

- **Alpha Schedule**: the number of frames.
- **Attention KV Inject**: a lower *end_percent* if frames are blurred. *frames_per_batch*: how many frames go through \
the model at a time, 0 for all; lower it if memory runs out. The result stays the same.
- **Fit Image LoRA**: *gradient_checkpointing*, if memory runs out there; it takes longer then.
- **Reschedule Alphas**: *lpips (vgg)* is the published metric; it needs torchvision's weights.

### What must agree

*steps* and *scheduler* of both DDIM Invert and of both KSamplers. KSampler keeps *cfg* 1, *add_noise* disable and \
the sampler ddim: otherwise the first and the last frame are no longer the images.
"""


def toy_result(prefix: str) -> Group:
    """A single pass, enlarged, in every form."""
    large, (made, film) = enlarged("large", "frames"), video("large", prefix)
    frames = Node("all frames", "PreviewImage", {"images": "large"}, width=360, room=360)
    return Group("Result", CYAN, [[large, animation("saved", "large", prefix), film], [made, frames, None]])


def toy_morph() -> Workflow:
    return [
        [note(TOY_MORPH_NOTE, 480), TOY_MODEL],
        TOY_ENDS,
        [blend("Blend", "", schedule())],
        [sample("Sample", "")],
        [toy_result("toy_morph")],
    ]


def two_passes(ends: Workflow, first: Group, second: Group, frames_per_batch: int = 0) -> Workflow:
    """The second pass below the first."""
    return [
        *ends,
        [
            blend("First pass: blend", " 1", schedule(), frames_per_batch),
            blend("Second pass: blend", " 2", reschedule(), frames_per_batch),
        ],
        [sample("First pass: sample", " 1"), sample("Second pass: sample", " 2")],
        [first, second],
    ]


def toy_morph_rescheduled() -> Workflow:
    def result(number: int, prefix: str) -> list[Node]:
        large = enlarged(f"large {number}", f"frames {number}")
        return [large, animation(f"saved {number}", large.name, prefix)]

    return two_passes(
        [[note(RESCHEDULED_NOTE, 480), TOY_MODEL], TOY_ENDS],
        Group("First pass: result", CYAN, [result(1, "toy_first_pass")]),
        Group("Second pass: result", CYAN, [[*result(2, "toy_second_pass"), *video("large 2", "toy_second_pass")]]),
    )


def large_morph(checkpoint: Checkpoint, prefix: str, save_memory: bool) -> Workflow:
    first, second = (
        animation(f"saved {number}", f"frames {number}", f"{prefix}_{name}", lossless=False)
        for number, name in ((1, "first_pass"), (2, "second_pass"))
    )
    images = [
        image(end, replaceable_source(end, looks, checkpoint.side), 200, 0.0002, large=save_memory)
        for end, looks in (("A", RED_CAT), ("B", BLUE_RABBIT))
    ]
    return two_passes(
        [[note(told(LARGE_MORPH_NOTE, checkpoint), 680), Group("Model", YELLOW, [[checkpoint.node()]])], images],
        Group("First pass: result", CYAN, [[first]]),
        Group("Second pass: result", CYAN, [[second, *video("frames 2", f"{prefix}_second_pass")]]),
        4 if save_memory else 0,
    )


def told(text: str, checkpoint: Checkpoint) -> str:
    """A note about this checkpoint."""
    words = {
        "FILE": checkpoint.file,
        "ADDRESS": checkpoint.address,
        "KIND": checkpoint.kind,
        "SIDE": str(checkpoint.side),
    }
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def sd15_morph() -> Workflow:
    return large_morph(SD15, "sd15", save_memory=False)


def sdxl_morph() -> Workflow:
    return large_morph(SDXL, "sdxl", save_memory=True)


TOY_DRAG_NOTE = """\
## Drag a drawing's head, ear and eye

Press **Run**. Nothing needs to be downloaded: the model is a tiny Stable Diffusion that comes with Morph & Drag.

### What happens

1. **Image**: a small LoRA learns the image, and DDIM Invert walks three quarters of the way to noise.
2. **Drag**: each Drag Latent Optimize changes that latent until what is at its handle has moved to its target. The \
second and the third are told by a mask where the image may change.
3. **Sample**: KSampler finishes the original and the dragged image side by side. Attention KV Inject makes the \
dragged one look at the original.

### What to change

- **The points**: drag their ends, or click new ones. Right click removes a pair.
- **Toy Drawing**: another animal. Pick the points anew: the picture appears when it has been drawn once.
- **objective**: *DragDiffusion* instead of *GoodDrag*.

### What must agree

*steps*, *scheduler* and *start_at_step* of DDIM Invert and of Drag Latent Optimize; KSampler's *start_at_step* comes \
from the drag. KSampler keeps *cfg* 1, *add_noise* disable and the sampler ddim.

Drag Options weighs the mask ten times as much as published, since this model's latents have few cells, and stops \
nearer to the target, since its images are small.

The faces this model knows have their eyes and ears in pairs: a dragged eye takes the head along.
"""

SD15_DRAG_NOTE = """\
## Drag a point of an image to where it should be

### Before the first run

- Put [FILE](ADDRESS) into *models/checkpoints*, or choose any other KIND model.

Then press **Run**: the drawing's head is dragged by its nose. The LoRA is fitted once; new points repeat only what \
comes after them.

### Your own image

- Add a **Load Image**, best of about SIDE pixels a side. Connect its IMAGE to *VAE Encode* and to *Drag Latent \
Optimize*, in place of Toy Drawing's.
- Describe the image in **CLIP Text Encode**.
- On **Drag Latent Optimize**, right click the old pair to remove it, click a handle, then where it should go. Several \
pairs are moved together.
- If only part of the image may change, paint that part in the mask editor and connect Load Image's MASK to *mask*.

### What happens

1. **Image**: a LoRA learns the image (80 steps, as published), and DDIM Invert walks three quarters \
of the way to noise.
2. **Drag**: the latent is changed until what is at each handle has moved to its target.
3. **Sample**: KSampler finishes the original and the dragged image side by side. Attention KV Inject makes the \
dragged one look at the original.

### What to change

- **objective**: *DragDiffusion* was published with *start_at_step* 15.
- **Drag Options**, connected to *options*: more iterations or a higher learning rate when a handle stops short.

### What must agree

*steps*, *scheduler* and *start_at_step* of DDIM Invert and of Drag Latent Optimize; KSampler's *start_at_step* comes \
from the drag. KSampler keeps *cfg* 1, *add_noise* disable and the sampler ddim.
"""


def toy_drag() -> Workflow:
    start, options = 12, {"options": "options"}
    drags = [
        drag("head", [[0.501, 0.621, 0.361, 0.621]], options, start, "GoodDrag"),
        drag("ear", [[0.698, 0.116, 0.798, 0.156]], {**options, "mask": "ear mask"}, start, "GoodDrag"),
        drag("eye", [[0.399, 0.505, 0.399, 0.455]], {**options, "mask": "eye mask"}, start, "GoodDrag"),
    ]
    settings = Node("options", "MorphDragDragOptions", {}, {"reach": 0.75, "mask_weight": 1.0}, 270)
    black = Node("black", "SolidMask", {}, {"value": 0.0, "width": 64, "height": 64}, NARROW)
    source = toy_source("D", PURPLE_RABBIT)
    results = []
    for node in drags:
        large = enlarged(f"{node.name} large", f"{node.name} images")
        pictures = {"images": large.name}
        results.append(
            [
                large,
                Node(
                    f"{node.name} saved",
                    "SaveImage",
                    pictures,
                    {"filename_prefix": f"{PACK}/toy_drag_{node.name}"},
                    360,
                    room=300,
                ),
                Node(f"{node.name} way", "PreviewImage", {"images": f"{node.name}.paths"}, width=300, room=300),
            ]
        )
    return [
        [note(TOY_DRAG_NOTE, 480), TOY_MODEL],
        [image("D", source, 80, 0.001, start, "Image")],
        [
            Group(
                "Masks and options",
                YELLOW,
                [[black, settings], toy_mask("ear", 36, 1, 22, 26), toy_mask("eye", 15, 20, 21, 21)],
            )
        ],
        [Group("Drag", GREEN, [[node] for node in drags])],
        [
            Group(
                "Sample",
                RED,
                [
                    [reference(), *sample_drag("head")],
                    [empty_prompt(), *sample_drag("ear")],
                    [None, *sample_drag("eye")],
                ],
            )
        ],
        [Group("Result: original and dragged, and the handle's way", CYAN, results)],
    ]


def sd15_drag() -> Workflow:
    start = 12
    dragged = drag("dragged", [[0.501, 0.621, 0.401, 0.621]], {}, start, "GoodDrag")
    saved = {"filename_prefix": f"{PACK}/sd15_drag"}
    return [
        [note(told(SD15_DRAG_NOTE, SD15), 620), Group("Model", YELLOW, [[SD15.node()]])],
        [image("D", large_source("D", PURPLE_RABBIT, SD15.side), 80, 0.0005, start, "Image")],
        [Group("Drag", GREEN, [[dragged]])],
        [Group("Sample", RED, [[reference(), *sample_drag("dragged")], [empty_prompt(), None, None]])],
        [
            Group(
                "Result: original and dragged, and the handles' ways",
                CYAN,
                [
                    [
                        Node("saved", "SaveImage", {"images": "dragged images"}, saved, 400, room=400),
                        Node("way", "PreviewImage", {"images": "dragged.paths"}, width=400, room=400),
                    ]
                ],
            )
        ],
    ]


EXACT_MORPH_NOTE = """\
## A morph whose ends are the images themselves

Press **Run**. Nothing needs to be downloaded: the model is a tiny Stable Diffusion that comes with Morph & Drag.

### What happens

This is the workflow *toy_morph* with two **Direct Inversion** nodes more. DDIM Invert keeps every latent on its way \
to noise (its TRAJECTORY). After each of KSampler's steps the first row of the batch is put back on image A's way and \
the last row on image B's. So the first and the last frame are exactly what the autoencoder makes of the images, and \
what the frames between see of them, through Attention KV Inject, is exact as well.

### What to change

- Bypass both **Direct Inversion** nodes to see what they do: without them the ends are close, not equal.
- Everything that may be changed in *toy_morph*.

### What must agree

*steps*, *scheduler* and *start_at_step* of both DDIM Invert and of KSampler, whose sampler is ddim or euler. *row*: 0 \
is the first frame, -1 the last.
"""

PINNED_DRAG_NOTE = """\
## A drag that leaves the rest untouched

Press **Run**. Nothing needs to be downloaded: the model is a tiny Stable Diffusion that comes with Morph & Drag.

### What happens

1. **Image**: a small LoRA learns the image, and DDIM Invert walks three quarters of the way to noise and keeps it.
2. **Drag**: the head is dragged by its nose, inside the mask.
3. **Pin**: two Direct Inversion nodes. The first holds the original (row 0) to its inversion, so that what the \
dragged row sees of it is exact. The second holds the dragged image (row 1) to it wherever the mask is black.
4. **Sample**: outside the mask the dragged image's latent is the original's.

### What to change

- **The points** and the mask's rectangle. What is to move must be inside, with the place it moves to.
- Bypass the second **Direct Inversion** node: the background's tint drifts.

### What must agree

*steps*, *scheduler* and *start_at_step* of DDIM Invert and of Drag Latent Optimize. KSampler's sampler is ddim or \
euler.
"""

TOY_EDIT_NOTE = """\
## Change one word, keep the rest

Press **Run**. Nothing needs to be downloaded: the model is a tiny Stable Diffusion that comes with Morph & Drag.

### What happens

1. **Image**: DDIM Invert finds the noise that leads back to the drawing, and keeps the way.
2. **Edit**: Prompt To Prompt samples two rows from that noise, one of the drawing's caption and one of the edited \
prompt. The second takes its attention from the first, so that the layout stays, and may differ only near the \
*blend_words*. Direct Inversion holds the first row to the drawing.
3. **Sample** with guidance.

### What to change

- **edited_prompt**: another animal, colour or mood.
- **blend_threshold**: higher keeps more, lower lets more change. Empty **blend_words** let everything change.
- **cross_percent**, **self_percent**: how long the words and the layout are the source's.
- **cfg** of KSampler: how strongly the edited prompt is told.

### What must agree

*steps*, *scheduler* and *start_at_step* of DDIM Invert and of KSampler, whose sampler is ddim or euler. \
*source_prompt* is the prompt that the image was inverted with.
"""


def toy_morph_exact() -> Workflow:
    pins = [pinned("A pinned", "patched", "A noise", 0), pinned("both pinned", "A pinned", "B noise", -1)]
    return [
        [note(EXACT_MORPH_NOTE, 480), TOY_MODEL],
        TOY_ENDS,
        [blend("Blend", "", schedule())],
        [Group("Exact ends", YELLOW, [[pin] for pin in pins])],
        [sample("Sample", "", "both pinned")],
        [toy_result("toy_morph_exact")],
    ]


def toy_drag_pinned() -> Workflow:
    start = 12
    dragged = drag(
        "head", [[0.501, 0.621, 0.361, 0.621]], {"options": "options", "mask": "head mask"}, start, "GoodDrag"
    )
    settings = Node("options", "MorphDragDragOptions", {}, {"reach": 0.75, "mask_weight": 1.0}, 270)
    black = Node("black", "SolidMask", {}, {"value": 0.0, "width": 64, "height": 64}, NARROW)
    pins = [
        pinned("original pinned", "referring", "D noise", 0),
        pinned("rest pinned", "original pinned", "D noise", 1, "head mask"),
    ]
    saved = {"filename_prefix": f"{PACK}/toy_drag_pinned"}
    results = [
        enlarged("large", "head images"),
        Node("saved", "SaveImage", {"images": "large"}, saved, 360, room=300),
        Node("way", "PreviewImage", {"images": "head.paths"}, width=300, room=300),
    ]
    return [
        [note(PINNED_DRAG_NOTE, 480), TOY_MODEL],
        [image("D", toy_source("D", PURPLE_RABBIT), 80, 0.001, start, "Image")],
        [Group("Mask and options", YELLOW, [[black, settings], toy_mask("head", 2, 2, 50, 52)])],
        [Group("Drag", GREEN, [[dragged]])],
        [Group("Pin", YELLOW, [[reference()], *([pin] for pin in pins)])],
        [Group("Sample", RED, [[empty_prompt(), *sample_drag("head", "rest pinned")]])],
        [Group("Result: original and dragged, and the handle's way", CYAN, [results])],
    ]


def toy_edit() -> Workflow:
    source = toy_source("D", {**RED_CAT, "seed": 3})
    schedule = {"steps": 50, "scheduler": "ddim_uniform", "start_at_step": 0}
    known = {"model": "model.MODEL", "positive": "D prompt", "latent_image": "D latent"}
    invert = Node("D noise", "MorphDragDdimInvert", known, schedule)
    words = {"edited_prompt": "a happy red rabbit on mint", "blend_words": "cat, rabbit", "blend_threshold": 0.6}
    prompts = {"model": "model.MODEL", "clip": "model.CLIP", "source_prompt": "D picture.caption"}
    control = Node("prompts", "MorphDragPromptToPrompt", prompts, words, WIDE, room=160)
    links = {"model": "pinned", "positive": "prompts.CONDITIONING", "negative": "empty prompt", "latent_image": "twice"}
    widgets = {**SAMPLER, "cfg": 7.5, "start_at_step": 0, "end_at_step": 10000}
    saved = {"filename_prefix": f"{PACK}/toy_edit"}
    return [
        [note(TOY_EDIT_NOTE, 480), TOY_MODEL],
        [Group("Image", BLUE, [[*source[0], None], [*source[1], invert]])],
        [Group("Edit", GREEN, [[control, pinned("pinned", "prompts.MODEL", "D noise", 0)]])],
        [
            Group(
                "Sample",
                RED,
                [
                    [
                        Node("twice", "RepeatLatentBatch", {"samples": "D noise"}, {"amount": 2}, NARROW),
                        Node("latents", "KSamplerAdvanced", links, widgets, WIDE),
                    ],
                    [empty_prompt(), Node("images", "VAEDecode", {"samples": "latents", "vae": "model.VAE"})],
                ],
            )
        ],
        [
            Group(
                "Result: the drawing and its edit",
                CYAN,
                [[enlarged("large", "images"), Node("saved", "SaveImage", {"images": "large"}, saved, 360, room=300)]],
            )
        ],
    ]


WORKFLOWS = [
    *(toy_morph, toy_morph_rescheduled, toy_morph_exact, sd15_morph, sdxl_morph),
    *(toy_drag, toy_drag_pinned, sd15_drag, toy_edit),
]


# From descriptions to the front end's format


class Slots:
    """A node type's inputs, outputs and widgets in the front end's order: sockets come before widgets."""

    WIDGETS = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})

    def __init__(self, definition: dict[str, Any]) -> None:
        self.sockets: dict[str, str] = {}
        self.widgets: dict[str, str] = {}
        self.values: dict[str, Any] = {}  # more than the widgets: the seed's control has no input
        self.optional = set(definition["input"].get("optional", {}))
        self.outputs = dict(zip(definition["output_name"], definition["output"], strict=True))
        for section in ("required", "optional"):
            for name, (kind, *rest) in definition["input"].get(section, {}).items():
                self._add(name, kind, rest[0] if rest else {})

    def _add(self, name: str, kind: Any, options: dict[str, Any]) -> None:
        choices = kind if isinstance(kind, list) else options.get("options", [])
        kind = "COMBO" if isinstance(kind, list) else kind
        if kind not in self.WIDGETS:
            self.sockets[name] = kind
            return
        self.widgets[name] = kind
        self.values[name] = options.get("default", choices[0] if choices else "")
        if options.get("control_after_generate"):
            self.values["control_after_generate"] = "fixed"
        if options.get("image_upload"):
            self.widgets["upload"] = "IMAGEUPLOAD"
            self.values["upload"] = "image"

    def height(self) -> int:
        """As the front end draws the node, below its title."""
        rows = max(len(self.sockets), len(self.outputs))
        return 6 + 20 * rows + (8 + 24 * len(self.values) if self.values else 0)


NOTE = Slots({"input": {"required": {"text": ["STRING", {}]}}, "output": [], "output_name": []})


def grid(sizes: Sequence[Sequence[tuple[int, int]]]) -> tuple[list[list[tuple[int, int]]], int, int]:
    """Corners of cells of (width, height) in aligned rows and columns, and the size of the whole."""
    widths = [max(width for width, _ in column) for column in zip(*sizes, strict=True)]
    heights = [max(height for _, height in row) for row in sizes]
    xs = [sum(widths[:i]) + GAP * i for i in range(len(widths))]
    ys = [sum(heights[:i]) + GAP // 2 * i for i in range(len(heights))]
    return [[(x, y) for x in xs] for y in ys], xs[-1] + widths[-1], ys[-1] + heights[-1]


class Canvas:
    """Collects the parts of one workflow file."""

    def __init__(self, workflow: Workflow, definitions: Definitions) -> None:
        self.columns = workflow
        self.nodes = [node for column in workflow for group in column for node in group.nodes()]
        self.ids = {node.name: number for number, node in enumerate(self.nodes, 1)}
        if len(self.ids) < len(self.nodes):
            raise ValueError("two nodes have one name")
        types = {node.type for node in self.nodes} - {"MarkdownNote"}
        self.slots = {"MarkdownNote": NOTE, **{name: Slots(definitions[name]) for name in types}}
        self.type_of = {node.name: node.type for node in self.nodes}
        self.positions: dict[str, tuple[int, int]] = {}
        self.groups: list[dict[str, Any]] = []
        self.links = list(self._links())
        self._place()

    def to_json(self) -> dict[str, Any]:
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": [self._node(node) for node in self.nodes],
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _links(self) -> Iterator[list[Any]]:
        number = 0
        for node in self.nodes:
            slots = self.slots[node.type]
            inputs = [*slots.sockets, *slots.widgets]
            if missing := slots.sockets.keys() - slots.optional - node.links.keys():
                raise ValueError(f"{node.name}: nothing is linked to {', '.join(missing)}")
            for name in sorted(node.links, key=inputs.index):
                number += 1
                source, _, output = node.links[name].partition(".")
                outputs = self.slots[self.type_of[source]].outputs
                place = list(outputs).index(output) if output else 0
                kind = list(outputs.values())[place]
                yield [number, self.ids[source], place, self.ids[node.name], inputs.index(name), kind]

    def _size(self, node: Node) -> tuple[int, int]:
        return node.width, self.slots[node.type].height() + node.room

    def _cell(self, node: Node | None) -> tuple[int, int]:
        """What a node takes of its row and column."""
        width, height = self._size(node) if node else (0, 0)
        return width, 0 if not node or node.spans else TITLE + height + GROWTH

    def _place(self) -> None:
        cells = [[self._placed(group) for group in column] for column in self.columns]
        row = max(column[0][2] for column in cells if len(column) > 1) + GAP
        bottom = row + max(column[1][2] for column in cells if len(column) > 1)
        x = 0
        for column, placed in zip(self.columns, cells, strict=True):
            for i, (group, (corners, width, height)) in enumerate(zip(column, placed, strict=True)):
                y = i * row if len(column) > 1 else (bottom - height) // 2
                for node, (dx, dy) in corners:
                    self.positions[node.name] = (x + dx, y + dy)
                if group.title:
                    self._frame(group, (x, y, width, height))
            x += max(width for _, width, _ in placed) + GAP

    def _placed(self, group: Group) -> tuple[list[tuple[Node, tuple[int, int]]], int, int]:
        """Corner of every node within the group, and the group's size."""
        sizes = [[self._cell(node) for node in row] for row in group.rows]
        corners, width, height = grid(sizes)
        border, top = (GAP // 2, GROUP_TITLE) if group.title else (0, 0)
        placed = [
            (node, (x + border, y + top + TITLE))
            for row, places in zip(group.rows, corners, strict=True)
            for node, (x, y) in zip(row, places, strict=True)
            if node
        ]
        return placed, width + 2 * border, height + top

    def _frame(self, group: Group, bounding: tuple[int, int, int, int]) -> None:
        frame = {"id": len(self.groups) + 1, "title": group.title, "bounding": list(bounding)}
        self.groups.append({**frame, "color": group.colour, "font_size": 32, "flags": {}})

    def _node(self, node: Node) -> dict[str, Any]:
        slots, number = self.slots[node.type], self.ids[node.name]
        is_note = node.type == "MarkdownNote"
        if unknown := node.widgets.keys() - slots.values.keys():
            raise ValueError(f"{node.name}: {node.type} has no widget {', '.join(unknown)}")
        properties: dict[str, Any] = {
            "cnr_id": PACK if node.type.startswith(PACK_PREFIX) else "comfy-core",
            "Node name for S&R": node.type,
        }
        if node.model:
            name = node.model.rpartition("/")[2]
            properties["models"] = [{"name": name, "url": node.model, "directory": "checkpoints"}]
        return {
            "id": number,
            "type": node.type,
            **({"title": node.title} if node.title else {}),
            "pos": list(self.positions[node.name]),
            "size": list(self._size(node)),
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": [] if is_note else list(self._inputs(number, slots)),
            "outputs": list(self._outputs(number, slots)),
            "properties": {} if is_note else properties,
            "widgets_values": [*{**slots.values, **node.widgets}.values()],
            **({"color": "#432", "bgcolor": "#653"} if is_note else {}),
        }

    def _inputs(self, number: int, slots: Slots) -> Iterator[dict[str, Any]]:
        link_into = {link[4]: link[0] for link in self.links if link[3] == number}
        for place, (name, kind) in enumerate({**slots.sockets, **slots.widgets}.items()):
            look = {"shape": 7} if name in slots.optional else {}
            widget = {"widget": {"name": name}} if name in slots.widgets else {}
            yield {"name": name, "type": kind, **look, **widget, "link": link_into.get(place)}

    def _outputs(self, number: int, slots: Slots) -> Iterator[dict[str, Any]]:
        for place, (name, kind) in enumerate(slots.outputs.items()):
            links = [link[0] for link in self.links if link[1:3] == [number, place]]
            yield {"name": name, "type": kind, "links": links}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the workflows in example_workflows/.")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="a running ComfyUI with this pack")
    with urllib.request.urlopen(f"{parser.parse_args().server}/object_info") as answer:
        definitions = json.load(answer)
    for describe in WORKFLOWS:
        workflow = Canvas(describe(), definitions).to_json()
        path = FOLDER / f"{describe.__name__}.json"
        path.write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.name}: {len(workflow['nodes'])} nodes, {len(workflow['links'])} links")


if __name__ == "__main__":
    main()
