"""What the record of any cell must hold: numbers that fit together, and what it says of the images it looked at."""

from __future__ import annotations

from clipbench.recipes.recipe import Recipe
from clipbench.records.cell import Record


def refuse_joint_above_half(record: Record) -> None:
    """AssertionError where images are right more often among all classes than within their half.

    What is best of all classes is best of its half wherever a method ranks the classes of a half alike in any list, as
    all must: a label that is right stays right where rivals are taken away.
    """
    joint = record.data.get("joint")
    assert joint or "no_joint" in record.data or list(record.splits) != ["base", "novel"], "no joint, and no reason"
    if joint is None:
        return
    for half in ("base", "novel"):
        inside, over_all = record.splits[half]["correct"], joint[half]["correct"]
        assert over_all <= inside, (
            f"{over_all} {half} images are right among all classes, {inside} among those of {half} alone: the order of "
            "its classes depends on what else is in the list"
        )
        assert joint[half]["total"] == record.splits[half]["total"]
    most = record.accuracy("base") * record.accuracy("novel") / 100
    assert record.joint()["openworld_auc"] <= most + 1e-9, "a pair is won only where both images are right"


def refuse_unsaid_validation(record: Record, recipe: Recipe) -> None:
    """AssertionError where a fit looked at val images and its recipe does not say so, or the other way round."""
    looked = record.provenance["val_images"]
    assert (looked > 0) == ("validation" in recipe.about), (
        f"the fit asked for {looked} val images: a recipe whose method chooses a setting on them has a line "
        "`validation:` that says which, and no other has one"
    )
    assert not looked or record.validation_free is False
