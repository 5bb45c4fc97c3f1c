"""So that a ComfyUI starts where torchaudio has no build for the installed PyTorch. It makes no sound."""

from . import functional, transforms

__all__ = ["functional", "transforms"]
