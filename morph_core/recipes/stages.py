"""What a recipe tells its caller as work goes on."""

from collections.abc import Callable

OnStage = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all); may raise to cancel."""


def stage_reporter(on_stage: OnStage | None, stage: str) -> Callable[..., None] | None:
    """`on_stage` as the callback of a loop that is one stage."""
    if on_stage is None:
        return None
    return lambda done, total, *_: on_stage(stage, done, total)
