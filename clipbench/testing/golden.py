"""Golden numbers of a method: what a short run on the embedded suite gives, beside the versions that it was made with.

A change that moves these numbers must raise the `version` of the method, of the data room or of the backbone room, since
these stand in the content key of every record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipbench.bench.plan import numeric_versions
from clipbench.testing.methods import Subject, images_of, scores


def golden_numbers(recipe: str, folder: Path) -> dict[str, Any]:
    """Versions, loss terms and some logits after two epochs of a recipe on mini's EuroSAT with four shots, seed 1."""
    subject = Subject(recipe, folder)
    with subject.objects() as objects:
        subject.fit(objects)
        method = objects.model.eval()
        images = images_of(objects, 4)
        return {
            "versions": numeric_versions() | {"method": method.version},
            "losses": {name: round(float(term), 6) for name, term in method.last_losses.items()},
            "logits": {
                split.name: [[round(x, 4) for x in row] for row in scores(method, images, split.classnames).tolist()]
                for split in method.task.tests
            },
        }
