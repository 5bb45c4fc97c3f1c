"""A result shows what was made and saves it under the pack's name."""

from ..description import CYAN, NARROW, PACK, Group, Node

FPS = 8.0


def enlarged(name: str, images: str) -> Node:
    """The toy model's images are too small to look at."""
    return Node(name, "ImageScaleBy", {"image": images}, {"upscale_method": "bicubic", "scale_by": 4.0})


def picture(name: str, images: str, prefix: str, width: int = 360, room: int = 300) -> Node:
    """Save Image saves each image of a batch."""
    return Node(name, "SaveImage", {"images": images}, _file(prefix), width, room)


def animation(name: str, images: str, prefix: str, lossless: bool = True) -> Node:
    """Save Animated WEBP saves the frames as an animation."""
    widgets = {**_file(prefix), "fps": FPS, "lossless": lossless, "quality": 90}
    return Node(name, "SaveAnimatedWEBP", {"images": images}, widgets, 360, room=360)


def video(images: str, prefix: str) -> tuple[Node, Node]:
    """Create Video makes a video of the frames, and Save Video saves it."""
    made = Node("video", "CreateVideo", {"images": images}, {"fps": FPS}, NARROW)
    return made, Node("saved video", "SaveVideo", {"video": made.name}, _file(prefix), 360, room=360)


def toy_morph_result(prefix: str) -> Group:
    """A single pass comes enlarged, as an animation, a video and pictures."""
    large, (made, film) = enlarged("large", "frames"), video("large", prefix)
    frames = Node("all frames", "PreviewImage", {"images": "large"}, width=360, room=360)
    return Group("Result", CYAN, [[large, animation("saved", "large", prefix), film], [made, frames, None]])


def _file(prefix: str) -> dict[str, str]:
    """Every saved file lies in a folder with the pack's name."""
    return {"filename_prefix": f"{PACK}/{prefix}"}
