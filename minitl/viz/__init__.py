"""Pictures: so far, entities in the terminal."""

from minitl.viz.terminal import colour_entities, printable, wants_colour

__all__ = ["colour_entities", "printable", "wants_colour"]
