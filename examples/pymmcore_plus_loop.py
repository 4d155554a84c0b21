"""Follow something bright with the stage, in a pymmcore-plus script.

In one terminal:  cytoloop serve examples/follow.toml
In another one:   python examples/pymmcore_plus_loop.py

It runs on Micro-Manager's demo camera, whose fluorescent beads move with the stage. For a microscope, load your
own configuration and leave the camera's mode out.
"""

from __future__ import annotations

import sys
import time

from cytoloop.acquire.micromanager.pymmcoreplus import connect
from pymmcore_plus import CMMCorePlus
from useq import MDASequence

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5790"


def main() -> None:
    core = CMMCorePlus()
    core.loadSystemConfiguration()  # the demo devices; give your configuration here
    core.setProperty("Camera", "Mode", "Fluorescent Beads")  # leave out at a microscope
    core.setProperty("Camera", "PixelType", "16bit")
    core.setExposure(10)
    plan = MDASequence(time_plan={"interval": 0.05, "loops": 20})
    try:
        # "lockstep": the next event is made when the reply to the last image is there, or deadline_s is over.
        with connect(ADDRESS, core, mode="lockstep", deadline_s=1.0) as loop:
            core.run_mda(loop.events(plan)).join()
            loop.client.drain(10)
            print(
                f"{loop.stats.images} images, {loop.stats.applied} moves, {loop.stats.late} replies too late"
            )
        print(f"the stage ended at ({core.getXPosition():.1f}, {core.getYPosition():.1f}) um")
    finally:
        core.unloadAllDevices()
        time.sleep(0.3)  # a process that ends right after an acquisition may crash in the core


if __name__ == "__main__":
    main()
