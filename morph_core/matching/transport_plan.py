"""Which places of two images belong together: entropic optimal transport between their features (Sinkhorn)."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import InvalidInput

LEAST_EPSILON = 0.01  # whose exponentials double precision still holds


def feature_cost(start: Tensor, end: Tensor) -> Tensor:
    """1 − cosine of every pair of features, (D, h, w) twice to (n, n) in 0..2, places row by row.

    What all places of both images have in common says nothing of where they belong: their mean is taken off first.
    Raises `InvalidInput` for different shapes and values that are not finite.
    """
    if start.shape != end.shape or start.ndim != 3:
        raise InvalidInput(
            f"features to match must be of one shape (D, h, w), got {tuple(start.shape)} and {tuple(end.shape)}; bring "
            "the images to one size"
        )
    both = torch.stack([start, end]).double().flatten(2)  # (2, D, n)
    if not torch.isfinite(both).all():
        raise InvalidInput("features to match must be finite; check the model and the latents")
    first, second = normalize(both - both.mean((0, 2), keepdim=True)[0], dim=1)
    return 1 - first.T @ second


def sinkhorn(cost: Tensor, epsilon: float = 0.1, iterations: int = 100) -> Tensor:
    """The plan (n, m) of least cost less epsilon times its entropy, with uniform marginals (Cuturi 2013).

    cost: (n, m), 0..2. Rows sum to 1/n, as the last step makes them; columns to 1/m as iterations go on.
    """
    if not epsilon >= LEAST_EPSILON or iterations < 1:
        raise InvalidInput(
            f"epsilon must be {LEAST_EPSILON} or more and iterations at least 1, got {epsilon} and {iterations}"
        )
    kernel = (-cost.double() / epsilon).exp()
    rows, columns = kernel.shape
    of_columns = kernel.new_ones(columns)
    for _ in range(iterations):
        of_rows = 1 / (rows * (kernel @ of_columns))
        of_columns = 1 / (columns * (kernel.T @ of_rows))
    of_rows = 1 / (rows * (kernel @ of_columns))
    return of_rows[:, None] * kernel * of_columns
