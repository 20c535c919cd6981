"""The search that chose the classes of every card.

Run ``python -m tools.mini.classes`` to see it, with ``--write`` to put its lists into the cards. It is
deterministic: the legacy ``RandomState`` draws the same numbers on every numpy. The cards hold the outcome; nothing
runs this at benchmark time.

A list is good if each half shows most values of every factor, if nearly every class has a neighbour in its half that
differs in one factor other than colour (raw pixels tell colours apart without reading shapes), if the novel half uses
no value that base lacks, except the reserved ones, and if what is left for pretraining still covers every value and
every pair of values.
"""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import combinations

import numpy as np
import yaml

from clipbench.mini.cards import card_path
from clipbench.mini.factors import Family, Values
from clipbench.mini.words import FAMILIES

RESTARTS, PROPOSALS = 3, 1500
PER_CLASS = {"train": 32, "val": 8, "test": 40}


def pretraining_tuples(family: Family, held_out: tuple[Values, ...]) -> list[Values]:
    """The tuples that pretraining may show: the grid minus the classes."""
    taken = set(held_out)
    return [values for values in family.grid() if values not in taken]


def pairs(values: Values) -> list[tuple[int, int, str, str]]:
    """All pairs of values of a tuple, with the places of their factors."""
    return [(i, j, values[i], values[j]) for i, j in combinations(range(len(values)), 2)]


def cost(family: Family, classes: list[Values]) -> float:
    """How far a list of classes is from what the module's docstring asks for; 0 would be perfect."""
    half = len(classes) // 2
    halves = (classes[:half], classes[half:])
    is_colour = family.colour_factors()
    total = 0.0
    for place, (factor, values) in enumerate(family.factors.items()):
        reserved = family.reserved.get(factor, ())
        counts = [Counter(one[place] for one in group) for group in halves]
        total += sum(100 * counts[0][value] + 6 * max(0, 2 - counts[1][value]) for value in reserved)
        total += 3 * sum(1 for value in counts[1] if value not in counts[0] and value not in reserved)
        if is_colour[place]:
            # Few colours, so that many classes share one; at least half of them, so that the names stay varied.
            total += sum(3 * max(0, (len(values) + 1) // 2 - len(count)) for count in counts)
        else:
            for count, expected in zip(counts, ([v for v in values if v not in reserved], list(values)), strict=True):
                times = [count[value] for value in expected]
                total += 3 * times.count(0) + float(np.std(times))
    for group in halves:
        for one in group:
            near = 0
            for other in group:
                apart = [place for place in range(len(one)) if one[place] != other[place]]
                near += len(apart) == 1 and not is_colour[apart[0]]
            total += (2.0, 0.7)[near] if near < 2 else 0.0
    seen = Counter(pair for one in classes for pair in pairs(one))
    grid_size = len(family.grid())
    sizes = [len(values) for values in family.factors.values()]
    total += 3 * sum(n >= grid_size // (sizes[i] * sizes[j]) for (i, j, _, _), n in seen.items())
    return total


def search(family: Family) -> list[Values]:
    """Hill climbing: replace a tuple or swap two, keep what is not worse.

    Returns:
        The classes in label order, base half first.
    """
    rng = np.random.RandomState(20240 + FAMILIES.index(family))
    grid = family.grid()
    best: list[Values] = []
    best_cost = float("inf")
    for _ in range(RESTARTS):
        now = [grid[i] for i in rng.permutation(len(grid))[: family.classes]]
        now_cost = cost(family, now)
        for _ in range(PROPOSALS):
            new = list(now)
            if rng.rand() < 0.3:
                i, j = rng.randint(len(now)), rng.randint(len(now))
                new[i], new[j] = new[j], new[i]
            else:
                tuple_ = grid[rng.randint(len(grid))]
                if tuple_ in now:
                    continue
                new[rng.randint(len(now))] = tuple_
            new_cost = cost(family, new)
            if new_cost <= now_cost:
                now, now_cost = new, new_cost
        if now_cost < best_cost:
            best, best_cost = now, now_cost
    half = family.classes // 2
    return sorted(best[:half], key=grid.index) + sorted(best[half:], key=grid.index)


def write(family: Family, classes: list[Values]) -> None:
    """Put classes, names and counts into the family's card; all else in the card stays."""
    path = card_path(family.key)
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    count = len(classes)
    data["classnames"] = [family.phrase(values) for values in classes]
    data["counts"] = {"classes": count, "base": (count + 1) // 2, "novel": count // 2}
    data["counts"].update({split: n * count for split, n in PER_CLASS.items()})
    data["mini"]["classes"] = [list(values) for values in classes]
    path.write_text(yaml.safe_dump(data, sort_keys=False, width=110, default_flow_style=None), encoding="utf-8")


def main() -> None:
    """Search all lists, print them with their costs, and write the cards if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the lists into the cards")
    write_cards = parser.parse_args().write
    for family in FAMILIES:
        found = search(family)
        print(f"{family.key}: cost {cost(family, found):.1f}")
        for label, values in enumerate(found):
            print(f"  {label:2d} {'base ' if label < len(found) // 2 else 'novel'} {family.phrase(values)}")
        if write_cards:
            write(family, found)


if __name__ == "__main__":
    main()
