"""The seam between methods and models: a model is a callable `denoise(x, sigma) -> x0`."""

from collections.abc import Callable

from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""x (B, C, H, W) at a scalar sigma > 0, noised as `NoiseSchedule.noised` has it, to the model's estimate of x0."""

OnStep = Callable[[int, int], None]
"""Called after every step of a loop with (steps done, steps in all); an exception from it cancels the loop."""
