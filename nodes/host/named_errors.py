"""Errors that say which node they come from, raised while a node runs or later by a patch that it has left."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...morph_core.errors import MorphError

LONGEST = 800  # characters; a message may quote what came, and anything may come


@contextmanager
def named(node: str) -> Iterator[None]:
    """Within this context the core's errors begin with the node's display name; those that have one keep it."""
    try:
        yield
    except MorphError as error:
        if hasattr(error, "node"):
            raise
        message = f"{node}: {error}"
        raised = type(error)(message if len(message) <= LONGEST else message[:LONGEST] + "…")
        raised.node = node  # type: ignore[attr-defined]
        raise raised from error
