"""The instant drag healed by Flux.1 Fill [dev], a model made for painting into pictures."""

from ..description import BLUE, CYAN, GREEN, NARROW, RED, WIDE, YELLOW, Group, Node, Workflow
from ..parts.dragging import track
from ..parts.models import Part, file_line
from ..parts.notes import note
from ..parts.pictures import PURPLE_RABBIT, replaceable_source
from ..parts.results import picture
from ..parts.sampling import empty_prompt
from ..parts.warping import HEAD_POINTS, head_mask, warp

SIDE = 1024
ENCODERS = "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main"
NETWORK = Part(
    "flux1-fill-dev.safetensors",
    "https://huggingface.co/Comfy-Org/flux1-dev/resolve/main/split_files/diffusion_models/flux1-fill-dev.safetensors",
)
CLIP_L = Part("clip_l.safetensors", f"{ENCODERS}/clip_l.safetensors")
T5 = Part("t5xxl_fp16.safetensors", f"{ENCODERS}/t5xxl_fp16.safetensors")
VAE = Part(
    "ae.safetensors",
    "https://huggingface.co/Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors",
)
FILES = {"diffusion_models": [NETWORK], "text_encoders": [CLIP_L, T5], "vae": [VAE]}


def workflow() -> Workflow:
    """The model is shown the warped picture and where to paint, and told a guidance of 30, as published."""
    (drawing, prompt), (square, _) = replaceable_source("D", PURPLE_RABBIT, SIDE)
    files = "\n".join(file_line(folder, part) for folder, parts in FILES.items() for part in parts)
    images = Node("images", "VAEDecode", {"samples": "healed", "vae": "vae"}, width=NARROW)
    return [
        [note(__file__, 640, files=files), _loaders()],
        [Group("Image", BLUE, [[drawing, square], [_of(prompt), _of(empty_prompt())]])],
        [head_mask(SIDE)],
        [Group("Warp", GREEN, [[warp("warped", "D square", HEAD_POINTS, rim=SIDE // 64, mask="head mask")]])],
        [_heal()],
        [
            Group(
                "Result, and what moved",
                CYAN,
                [[images, picture("saved", "images", "flux_fill_drag")], [track("warped", 300), None]],
            )
        ],
    ]


def _loaders() -> Group:
    """Each loader offers to download its files."""
    both = {"clip_name1": CLIP_L.file, "clip_name2": T5.file, "type": "flux"}
    encoders = (CLIP_L.address, T5.address)
    rows = [
        Node("model", "UNETLoader", {}, {"unet_name": NETWORK.file}, 420, models=(NETWORK.address,)),
        Node("clip", "DualCLIPLoader", {}, both, 420, models=encoders),
        Node("vae", "VAELoader", {}, {"vae_name": VAE.file}, 420, models=(VAE.address,)),
    ]
    return Group("Model", YELLOW, [[node] for node in rows])


def _of(prompt: Node | None) -> Node | None:
    """A prompt's words are read by the loaded text encoders."""
    return prompt and Node(prompt.name, prompt.type, {"clip": "clip"}, prompt.widgets, room=80, title=prompt.title)


def _heal() -> Group:
    """KSampler paints what the warp left, all the way from noise."""
    told = Node("told", "FluxGuidance", {"conditioning": "D prompt"}, {"guidance": 30.0}, NARROW)
    links = {"positive": told.name, "negative": "empty prompt", "vae": "vae", "pixels": "warped", "mask": "warped.MASK"}
    inpaint = Node("inpaint", "InpaintModelConditioning", links, {"noise_mask": True}, NARROW)
    pair = {"positive": "inpaint.positive", "negative": "inpaint.negative", "latent_image": "inpaint.latent"}
    widgets = {"seed": 0, "steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return Group(
        "Heal", RED, [[told, inpaint], [Node("healed", "KSampler", {"model": "model", **pair}, widgets, WIDE), None]]
    )
