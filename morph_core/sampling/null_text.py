"""Null-text Inversion (Mokady et al., CVPR 2023): guided sampling that follows an inversion.

Guidance leads away from the trajectory that was inverted without it. The embedding of the empty prompt is optimised at
each step until the guided step ends where the trajectory does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoise import Denoise, OnStep
from ..errors import InvalidInput
from .ddim import step
from .guidance import guided
from .trajectory import Trajectory

DenoiserOf = Callable[[Tensor], Denoise]
"""From a text embedding (B or 1, T, D) to the model's `Denoise` for it."""


@dataclass(frozen=True)
class NullText:
    """How to optimise. Defaults are the published code's."""

    guidance: float = 7.5
    inner_steps: int = 10
    """Updates at each sampling step, at most."""
    learning_rate: float = 1e-2
    """Of Adam; falls by a hundredth of it at each sampling step."""
    early_stop: float = 1e-5
    """A step is done when its loss is below this, plus twice this for each step before it."""
    budget: int = 0
    """Updates in all, at most: the steps after them keep the last embedding. 0: no limit."""

    def __post_init__(self) -> None:
        for name in ("inner_steps", "learning_rate"):
            if getattr(self, name) <= 0:
                raise InvalidInput(f"{name} must be above 0, got {getattr(self, name)}")
        if self.budget < 0:
            raise InvalidInput(f"budget must be 0 or more, got {self.budget}")


@dataclass(frozen=True)
class NullTextResult:
    """embeddings: (S, B, T, D), of the unconditional prediction at each step.

    losses: (S, B), before the last update of each step; infinite where the budget was spent. updates: how many there
    were.
    """

    embeddings: Tensor
    losses: Tensor
    updates: int


def null_text_inversion(
    conditional: Denoise,
    unconditional: DenoiserOf,
    negative: Tensor,
    trajectory: Trajectory,
    config: NullText | None = None,
    on_step: OnStep | None = None,
) -> NullTextResult:
    """Optimise the unconditional embedding of every step so that guided DDIM follows a trajectory of B images.

    conditional: the model with the images' prompts. unconditional: the model with an embedding in place of `negative`
    (B or 1, T, D). The loss is the mean squared distance, after the step, of the latents as the network sees them; a
    step starts from the embedding that the step before ended with. Each image is optimised for itself. on_step: called
    after every update with what is done of all that there may be.
    """
    config = config or NullText()
    sigmas, steps = trajectory.sigmas, len(trajectory.sigmas) - 1
    x = trajectory.noise
    embedding = negative.expand(len(x), -1, -1).detach().clone()
    embeddings, losses, updates = [], [], 0
    for i in range(steps):
        with torch.no_grad():
            prediction = conditional(x, sigmas[i])
        guided_step = _GuidedStep(x, prediction, trajectory, i, config.guidance)
        rate, enough = config.learning_rate * max(0.0, 1 - i / 100), config.early_stop * (1 + 2 * i)
        most = min(config.inner_steps, config.budget - updates) if config.budget else config.inner_steps

        def on_update(done: int, first: int = i * config.inner_steps) -> None:
            if on_step:
                on_step(first + done, steps * config.inner_steps)

        embedding, loss, done = _optimised(guided_step, unconditional, embedding, rate, enough, most, on_update)
        if done < config.inner_steps:
            on_update(config.inner_steps)
        updates += done
        with torch.no_grad():
            x = guided_step.end(unconditional(embedding)(x, sigmas[i]))
        embeddings.append(embedding)
        losses.append(loss)
    return NullTextResult(torch.stack(embeddings), torch.stack(losses), updates)


def null_text_denoiser(unconditional: DenoiserOf, embeddings: Tensor, sigmas: Tensor) -> Denoise:
    """The unconditional prediction of a run through the trajectory's sigmas (S + 1,).

    embeddings: (S, B, T, D), of `null_text_inversion`. Between two sigmas the nearer one's counts.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        step = int((sigmas[:-1].to(sigma).log() - sigma.log()).abs().argmin())
        return unconditional(embeddings[step])(x, sigma)

    return denoise


@dataclass(frozen=True)
class _GuidedStep:
    """One guided DDIM step from x, and where it should end."""

    x: Tensor
    conditional: Tensor
    trajectory: Trajectory
    number: int
    guidance: float

    @property
    def sigma(self) -> Tensor:
        return self.trajectory.sigmas[self.number]

    @property
    def next_sigma(self) -> Tensor:
        return self.trajectory.sigmas[self.number + 1]

    def end(self, unconditional: Tensor) -> Tensor:
        x0 = guided(unconditional, self.conditional, self.guidance)
        return step(self.x, x0, self.sigma, self.next_sigma)

    def loss(self, unconditional: Tensor) -> Tensor:
        """(B,)"""
        error = self.end(unconditional) - self.trajectory.latents[self.number + 1]
        return (error / self.trajectory.schedule.scale(self.next_sigma)).square().flatten(1).mean(1)


def _optimised(
    guided_step: _GuidedStep,
    unconditional: DenoiserOf,
    embedding: Tensor,
    rate: float,
    enough: float,
    most: int,
    on_update: Callable[[int], None],
) -> tuple[Tensor, Tensor, int]:
    """The embedding after at most so many updates, what the loss was before the last (B,), and how many they were.

    A row is updated for the last time when its loss is found below `enough`, as published.
    """
    embedding = embedding.clone().requires_grad_()
    optimiser = torch.optim.Adam([embedding], rate)
    losses, done = embedding.new_full((len(embedding),), torch.inf), 0
    while done < most and not (losses < enough).all():
        with torch.enable_grad():
            loss = guided_step.loss(unconditional(embedding)(guided_step.x, guided_step.sigma))
            (embedding.grad,) = torch.autograd.grad(loss.sum(), embedding)
        if not torch.isfinite(loss).all():
            raise InvalidInput(
                f"the prediction is not finite after {done} updates of a step: lower learning_rate, or use float32 "
                "where the model is of another type"
            )
        before, unfinished = embedding.detach().clone(), losses >= enough
        optimiser.step()
        losses = torch.where(unfinished, loss.detach(), losses)
        with torch.no_grad():
            embedding.copy_(torch.where(unfinished[:, None, None], embedding, before))
        done += 1
        on_update(done)
    return embedding.detach(), losses, done
