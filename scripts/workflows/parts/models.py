"""A workflow begins with a model: the bundled toy, a published checkpoint, or a model in three files."""

from dataclasses import dataclass

from ..description import NARROW, YELLOW, Group, Node


@dataclass(frozen=True)
class Checkpoint:
    """A published model has a file, an address, a kind, and the pixels a side that it was trained on."""

    file: str
    address: str
    kind: str
    side: int


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
TOY_MODEL = Group("Model", YELLOW, [[Node("model", "MorphDragLoadToyModel", width=NARROW)]])
TOY_FLOW_MODEL = Group(
    "Model", YELLOW, [[Node("model", "MorphDragLoadToyModel", {}, {"network": "transformer"}, width=NARROW)]]
)


def large_model(checkpoint: Checkpoint) -> Group:
    """Load Checkpoint offers to download the model."""
    chosen = {"ckpt_name": checkpoint.file}
    node = Node("model", "CheckpointLoaderSimple", widgets=chosen, width=420, models=(checkpoint.address,))
    return Group("Model", YELLOW, [[node]])


@dataclass(frozen=True)
class Part:
    """A file of a model has an address."""

    file: str
    address: str


@dataclass(frozen=True)
class FlowModel:
    """A published flow model comes in one file, or has others for its text encoder and its VAE.

    `kind`: as people call it. `text_encoder_type`: what Load CLIP is told. `latents`: the node that makes empty ones.
    `steps`: of inversion and sampling. `distilled`: whether its guidance comes from the prompt.
    """

    kind: str
    network: Part
    latents: str
    steps: int
    text_encoder: Part | None = None
    text_encoder_type: str = ""
    vae: Part | None = None
    distilled: bool = False

    def loaders(self) -> Group:
        """Each loader offers to download its file."""
        if self.text_encoder is None or self.vae is None:
            rows = [[_loader("model", "CheckpointLoaderSimple", "ckpt_name", self.network)]]
        else:
            kind = {"type": self.text_encoder_type}
            rows = [
                [_loader("model", "UNETLoader", "unet_name", self.network)],
                [_loader("clip", "CLIPLoader", "clip_name", self.text_encoder, kind)],
                [_loader("vae", "VAELoader", "vae_name", self.vae)],
            ]
        return Group("Model", YELLOW, rows)

    def sources(self) -> dict[str, str]:
        """What parts of workflows link to, and where it comes from."""
        return {} if self.vae is None else {"model.CLIP": "clip.CLIP", "model.VAE": "vae.VAE"}

    def files(self) -> str:
        """Where each file goes, in Markdown."""
        if self.text_encoder is None or self.vae is None:
            return file_line("checkpoints", self.network)
        parts = {"diffusion_models": self.network, "text_encoders": self.text_encoder, "vae": self.vae}
        return "\n".join(file_line(folder, part) for folder, part in parts.items())


def _loader(name: str, kind: str, widget: str, part: Part, other: dict[str, str] | None = None) -> Node:
    return Node(name, kind, widgets={widget: part.file, **(other or {})}, width=420, models=(part.address,))


def file_line(folder: str, part: Part) -> str:
    """A note says where a file goes, in Markdown."""
    return f"- [{part.file}]({part.address}) into *models/{folder}*"


FLUX = FlowModel(
    kind="Flux.1 [dev]",
    network=Part(
        "flux1-dev-fp8.safetensors",
        "https://huggingface.co/Comfy-Org/flux1-dev/resolve/main/flux1-dev-fp8.safetensors",
    ),
    latents="EmptySD3LatentImage",
    steps=28,
    distilled=True,
)
QWEN_IMAGE = FlowModel(
    kind="Qwen-Image",
    network=Part(
        "qwen_image_fp8_e4m3fn.safetensors",
        "https://huggingface.co/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
    ),
    text_encoder=Part(
        "qwen_2.5_vl_7b_fp8_scaled.safetensors",
        "https://huggingface.co/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
    ),
    text_encoder_type="qwen_image",
    vae=Part(
        "qwen_image_vae.safetensors",
        "https://huggingface.co/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/vae/qwen_image_vae.safetensors",
    ),
    latents="EmptySD3LatentImage",
    steps=20,
)
Z_IMAGE = FlowModel(
    kind="Z-Image Turbo",
    network=Part(
        "z_image_turbo_bf16.safetensors",
        "https://huggingface.co/Comfy-Org/z_image_turbo/resolve/main/split_files/diffusion_models/z_image_turbo_bf16.safetensors",
    ),
    text_encoder=Part(
        "qwen_3_4b.safetensors",
        "https://huggingface.co/Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors",
    ),
    text_encoder_type="lumina2",
    vae=Part(
        "ae.safetensors", "https://huggingface.co/Comfy-Org/z_image_turbo/resolve/main/split_files/vae/ae.safetensors"
    ),
    latents="EmptySD3LatentImage",
    steps=20,
)
