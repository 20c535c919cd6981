"""What each family draws. Every function paints one tuple on a canvas from a fixed vector of uniforms, read by slot."""

from __future__ import annotations

from collections.abc import Callable

from clipbench.mini.content.brush import Brush
from clipbench.mini.content.creatures import draw_actions, draw_pets
from clipbench.mini.content.items import draw_flowers, draw_food, draw_objects, draw_things
from clipbench.mini.content.places import draw_satellite, draw_scenes, draw_textures
from clipbench.mini.content.vehicles import draw_aircraft, draw_cars

DRAW: dict[str, Callable[[Brush, tuple[str, ...]], None]] = {
    "things": draw_things,
    "objects": draw_objects,
    "pets": draw_pets,
    "cars": draw_cars,
    "flowers": draw_flowers,
    "food": draw_food,
    "aircraft": draw_aircraft,
    "scenes": draw_scenes,
    "textures": draw_textures,
    "satellite": draw_satellite,
    "actions": draw_actions,
}

# Families that cover the whole canvas: without content they have no picture of their own.
FULL_CANVAS = ("scenes", "textures", "satellite")

__all__ = ["DRAW", "FULL_CANVAS", "Brush"]
