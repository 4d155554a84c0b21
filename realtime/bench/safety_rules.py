"""The rules of ``bench safety``: one that acts in every frame within the limits, and one that floods."""

from __future__ import annotations

from random import Random

from ...acquire.commands import Command, MoveStage, SetProperty, Stimulate, Trigger
from ...acquire.reply import Decision
from ..rules.rule import Moment, Verdict

GOOD_FOR_S = 0.5
"""How long its decisions are good for, in s of frame time."""
LIGHT = ("LED", "State")
"""Device and property that stand for a light that stays on."""
OUTPUT = "gate"
BOX_UM = 40.0
"""The stage stays within this distance of where it began, in x and in y."""
POWER_MAX, LENGTH_MAX_MS, DOSE_MS, PULSES, COMMANDS_PER_S = 0.5, 20.0, 400.0, 60, 40.0
"""The limits of the measurement: strength and length of light, dose and pulses of a run, rate."""


class Busy:
    """Lights a place, moves the stage a little, leaves a light on, and fires an output, in every frame.

    Parameters
    ----------
    decisions
        How many sets of these it gives for one frame.
    wild
        Ask for what no limit allows, too.
    seed
        Of its random numbers.
    """

    name = "busy"

    def __init__(self, *, decisions: int = 1, wild: bool = False, seed: int = 0) -> None:
        self._decisions, self._wild, self._random = decisions, wild, Random(seed)

    def examples(self) -> tuple[Command, ...]:
        """Return none: the limits are to refuse what they do not allow while it runs."""
        return ()

    def decide(self, moment: Moment) -> Verdict:
        """Return the decisions of a frame."""
        frame = moment.frame
        commands = [each for _ in range(self._decisions) for each in self._commands(frame.time_s)]
        return Verdict(
            tuple(
                Decision(
                    self.name,
                    command,
                    frame.sequence,
                    frame.time_s,
                    frame.time_s + GOOD_FOR_S,
                    stage_um=frame.stage_um,
                )
                for command in commands
            )
        )

    def _commands(self, time_s: float) -> tuple[Command, ...]:
        draw = self._random.uniform
        far = 100.0 if self._wild else 0.9
        light = Stimulate(
            points_px=((draw(5, 50) * (3 if self._wild else 1), draw(5, 50)),),
            radius_px=2.0,
            duration_ms=LENGTH_MAX_MS * draw(0.1, 3 if self._wild else 0.5),
            power=POWER_MAX * draw(0.1, 2 if self._wild else 1),
        )
        return (
            light,
            SetProperty(*LIGHT, "1"),
            Trigger(OUTPUT, time_s + draw(0.0, 0.1), 1.0),
            MoveStage(BOX_UM * draw(-far, far), BOX_UM * draw(-far, far)),
        )


BUSY = f"{__name__}:{Busy.__name__}"
