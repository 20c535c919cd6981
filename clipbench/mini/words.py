"""The closed world of words: factors, their values, and how a tuple of values is put into words.

A *family* is one dataset of the suite. A class is one tuple of factor values; its name is the family's first phrase.
Phrases name their factors as ``{factor}``, so the factors that a caption states can be read off the phrase itself.
"""

from __future__ import annotations

from clipbench.mini.factors import COLOURS, Family

_PHOTO = "a photo of a {}."

FAMILIES: tuple[Family, ...] = (
    Family(
        "things",
        "imagenet",
        {
            "pattern": ("plain", "striped", "dotted", "checkered"),
            "colour": COLOURS,
            "shape": ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond"),
        },
        (
            "{pattern} {colour} {shape}",
            "{colour} {shape}, {pattern}",
            "{colour} {shape}",
            "{pattern} {shape}",
            "{shape}, {pattern} and {colour}",
            "{shape}",
        ),
        _PHOTO,
        (
            "itap of a {}.",
            "a bad photo of the {}.",
            "a origami {}.",
            "a photo of the large {}.",
            "a {} in a video game.",
            "art of the {}.",
            "a photo of the small {}.",
        ),
        20,
        {"shape": ("heart", "diamond")},
    ),
    Family(
        "objects",
        "caltech101",
        {
            "colour": COLOURS,
            "kind": ("house", "tree", "key", "cup", "fish", "umbrella", "lamp", "mushroom"),
            "frame": ("circle", "square", "diamond"),
        },
        (
            "{colour} {kind} in a {frame}",
            "{kind} in a {frame}, {colour}",
            "{colour} {kind}",
            "{kind} in a {frame}",
            "{frame} with a {colour} {kind}",
            "{colour} {kind} in a {frame}",
        ),
        _PHOTO,
        (),
        16,
        {},
    ),
    Family(
        "pets",
        "oxford_pets",
        {
            "coat": ("plain", "spotted", "striped"),
            "colour": ("brown", "white", "black", "orange", "gray"),
            "animal": ("cat", "dog", "rabbit", "bear"),
        },
        (
            "{coat} {colour} {animal}",
            "{colour} {animal}, {coat}",
            "{colour} {animal}",
            "{coat} {animal}",
            "{animal}, {coat} and {colour}",
            "{coat} {colour} {animal}",
        ),
        "a photo of a {}, a type of pet.",
        (),
        12,
        {"animal": ("bear",)},
    ),
    Family(
        "cars",
        "stanford_cars",
        {"colour": COLOURS, "body": ("sedan", "truck", "van", "bus", "jeep"), "extra": ("stripe", "rack")},
        (
            "{colour} {body} with a {extra}",
            "{body} with a {extra}, {colour}",
            "{colour} {body}",
            "{body} with a {extra}",
            "{colour} {body}, a {extra}",
            "{colour} {body} with a {extra}",
        ),
        _PHOTO,
        (),
        16,
        {"body": ("jeep",)},
    ),
    Family(
        "flowers",
        "oxford_flowers",
        {
            "colour": ("purple", "red", "pink", "orange", "blue", "white"),
            "petals": ("three", "five", "eight"),
            "center": ("yellow", "brown", "green"),
        },
        (
            "{colour} flower with {petals} petals and a {center} center",
            "flower with {petals} {colour} petals and a {center} center",
            "{colour} flower with {petals} petals",
            "{colour} flower with a {center} center",
            "flower with {petals} petals and a {center} center",
            "flower with {petals} petals",
        ),
        "a photo of a {}, a type of flower.",
        (),
        16,
        {},
    ),
    Family(
        "food",
        "food101",
        {
            "colour": ("red", "green", "yellow", "brown", "white"),
            "item": ("balls", "sticks", "cubes", "slices"),
            "dish": ("bowl", "tray", "plate"),
        },
        (
            "{colour} {item} in a {dish}",
            "{item} in a {dish}, {colour}",
            "{colour} {item}",
            "{item} in a {dish}",
            "{dish} with {colour} {item}",
            "{colour} {item} in a {dish}",
        ),
        "a photo of {}, a type of food.",
        (),
        12,
        {"item": ("slices",)},
    ),
    Family(
        "aircraft",
        "fgvc_aircraft",
        {
            "wing": ("straight", "swept", "delta"),
            "engines": ("one", "two", "four"),
            "tail": ("red", "blue", "green", "yellow"),
        },
        (
            "{wing} wing plane with {engines} engines and a {tail} tail",
            "{wing} wing plane with a {tail} tail and {engines} engines",
            "{wing} wing plane with {engines} engines",
            "plane with {engines} engines and a {tail} tail",
            "{wing} wing plane with a {tail} tail",
            "{wing} wing plane with {engines} engines and a {tail} tail",
        ),
        "a photo of a {}, a type of aircraft.",
        (),
        12,
        {},
    ),
    Family(
        "scenes",
        "sun397",
        {
            "ground": ("desert", "forest", "sea", "city", "mountains", "field"),
            "sky": ("blue", "pink", "gray", "black", "orange"),
            "above": ("sun", "clouds", "stars"),
        },
        (
            "{ground} under a {sky} sky with {above}",
            "{sky} sky with {above} and {ground}",
            "{ground} under a {sky} sky",
            "{sky} sky with {above}",
            "{ground} with {above}",
            "{ground} under a {sky} sky with {above}",
        ),
        _PHOTO,
        (),
        16,
        {"ground": ("field",)},
    ),
    Family(
        "textures",
        "dtd",
        {
            "direction": ("horizontal", "vertical", "diagonal"),
            "pattern": ("stripes", "waves", "zigzags", "dashes", "beads", "bricks", "crosses", "triangles"),
            "flaw": ("hole", "tear", "star"),
        },
        (
            "{direction} {pattern} with a {flaw}",
            "{pattern} with a {flaw}, {direction}",
            "{direction} {pattern}",
            "{pattern} with a {flaw}",
            "{pattern}",
            "{direction} {pattern} with a {flaw}",
        ),
        "{} texture.",
        ("a photo of a {}, a type of texture.", "a texture of {}."),
        12,
        {},
    ),
    Family(
        "satellite",
        "eurosat",
        {
            "structure": ("river", "road", "houses", "ponds", "trees"),
            "land": ("green", "brown", "yellow", "gray"),
            "beside": ("sea", "forest", "town"),
        },
        (
            "{structure} in {land} land beside a {beside}",
            "{land} land with {structure} beside a {beside}",
            "{structure} in {land} land",
            "{land} land beside a {beside}",
            "{structure} beside a {beside}",
            "{structure} in {land} land beside a {beside}",
        ),
        "a satellite photo of {}.",
        ("a centered satellite photo of {}.",),
        10,
        {},
    ),
    Family(
        "actions",
        "ucf101",
        {
            "arms": ("raised", "spread", "lowered"),
            "pose": ("standing", "running", "kneeling"),
            "tool": ("ball", "hoop", "stick", "box"),
        },
        (
            "{pose} person with {arms} arms and a {tool}",
            "{pose} person with a {tool} and {arms} arms",
            "{pose} person with {arms} arms",
            "{pose} person with a {tool}",
            "person with {arms} arms and a {tool}",
            "person with a {tool}",
        ),
        _PHOTO,
        ("a photo of a person doing {}.",),
        12,
        {},
    ),
)


def family(key: str) -> Family:
    """The family of a card key (``imagenet``) or of a family name (``things``).

    Raises:
        KeyError: no such family.
    """
    for one in FAMILIES:
        if key in (one.key, one.name):
            return one
    raise KeyError(f"no family {key!r}; there are {', '.join(f.key for f in FAMILIES)}")
