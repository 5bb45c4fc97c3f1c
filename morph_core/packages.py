"""The packages that are imported only when a method needs them, and what is said when one cannot be used.

    with needed("diffusers"):
        from diffusers import UNet2DConditionModel

Nothing is repaired here: installing is the user's, by the command that the error names.
"""

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingPackage

BOUNDS = {  # as in requirements.txt and requirements-library.txt
    "diffusers": ">=0.30",
    "lpips": ">=0.1.4",
    "torch": ">=2.3",
    "torchvision": "",
}
COMES_WITH_COMFYUI = ("torch", "torchvision")  # one's version goes with the other's and with the graphics card
LONGEST_REASON = 200  # characters


@contextmanager
def needed(name: str) -> Iterator[None]:
    """Around the import of a package of `BOUNDS`: raises `MissingPackage` when it is missing, too old or broken."""
    check_version(name)
    try:
        yield
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise MissingPackage(f"{name} is not installed. {advice(name)}") from error
        found = f"{name} {installed_version(name) or '(of unknown version)'}"
        raise MissingPackage(f"{found} cannot be imported ({reason(error)}). {advice(name)}") from error


def check_version(name: str) -> None:
    """Raise `MissingPackage` when a package of `BOUNDS` is there and older than its lower bound."""
    version = installed_version(name)
    oldest = BOUNDS[name].split(",")[0].removeprefix(">=")
    if version and numbers(version) < numbers(oldest):
        raise MissingPackage(f"{name} {version} is too old, {oldest} or newer is needed. {advice(name)}")


def installed_version(name: str) -> str | None:
    """None where the package has no metadata, and so perhaps is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> list[int]:
    """The numbers of a version's release: 2.3.1+cu121 to 2, 3, 1."""
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3]]


def reason(error: BaseException) -> str:
    """The error that began it, in one line."""
    while error.__cause__:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


def advice(name: str) -> str:
    """The command that installs a package for the running Python, which need not be the one on the user's PATH."""
    if name in COMES_WITH_COMFYUI:
        return f"It comes with ComfyUI and belongs to your graphics card: install {name} as ComfyUI's README says"
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable or "python"
    return f'Install it with: {python} -m pip install "{name}{BOUNDS[name]}" and restart ComfyUI'
