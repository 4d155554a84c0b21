"""What is done with a wanted cell when others may pass the gate in the same opening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

Policy: TypeAlias = Literal["purity", "yield", "enrich"]
POLICIES = ("purity", "yield", "enrich")


class Neighbour(NamedTuple):
    """Another cell that may pass in the opening: whether it is wanted, how likely it does, and how much later in s."""

    track: int
    wanted: bool
    chance: float
    later_s: float


def refusal(policy: Policy, neighbours: Sequence[Neighbour], contamination: float) -> str:
    """Return why the gate stays closed, or ``""``.

    Parameters
    ----------
    policy
        ``"purity"``: closed where the chance that any other unwanted cell passes is above ``contamination``.
        ``"enrich"``: closed where more unwanted cells than wanted ones are expected, the wanted cell itself counted.
        ``"yield"``: never closed.
    neighbours
        The other cells that may pass.
    contamination
        0 to 1.
    """
    others = [each for each in neighbours if not each.wanted]
    if policy == "yield" or not others:
        return ""
    likeliest = max(others, key=lambda each: each.chance)
    beside = f"cell {likeliest.track} passes {abs(1000 * likeliest.later_s):.3f} ms"
    beside += " later" if likeliest.later_s >= 0 else " earlier"
    if policy == "purity":
        alone = 1.0
        for each in others:
            alone *= 1 - each.chance
        if 1 - alone > contamination:
            return (
                f"policy purity: {beside}; chance of contamination {1 - alone:.2f}, allowed {contamination:g}"
            )
        return ""
    unwanted = sum(each.chance for each in others)
    wanted = 1 + sum(each.chance for each in neighbours if each.wanted)
    if unwanted > wanted:
        return f"policy enrich: {beside}; {unwanted:.1f} unwanted and {wanted:.1f} wanted cells are expected"
    return ""
