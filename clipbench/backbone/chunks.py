"""How many images are encoded together on a CPU without gradient: so few that their activations stay in its cache.

The result of a matrix product depends on how many rows go in, so other sizes are other numbers.
"""

from __future__ import annotations

from clipbench.backbone.shapes import OpenClipOnly
from clipbench.backbone.spec import BackboneSpec

IMAGES = 8  # of 224 x 224 pixels
ACTIVATIONS = 5_000_000  # tokens x MLP width of our own image tower


def chunk_sizes(count: int, spec: BackboneSpec, hooked: bool = False) -> list[int]:
    """Sizes of the parts that a batch is encoded in.

    Args:
        count: images of the batch.
        spec: of the backbone.
        hooked: whether hooks look at the tokens; then only the pixels bound a part.

    Returns:
        Positive numbers with the sum `count` (`[0]` for none): parts by pixels, each cut once more by activations.
    """
    parts = _cut(count, max(1, round(IMAGES * (224 / spec.image_size) ** 2)))
    shape = spec.image_shape
    if hooked or isinstance(shape, OpenClipOnly):
        return parts
    tokens = 1 + shape.grid[0] * shape.grid[1]
    return [size for part in parts for size in _cut(part, max(1, ACTIVATIONS // (tokens * shape.blocks.mlp_width)))]


def _cut(count: int, most: int) -> list[int]:
    """As torch's `split`: parts of `most`, and what is left."""
    whole, rest = divmod(count, most)
    return [most] * whole + ([rest] if rest or not whole else [])
