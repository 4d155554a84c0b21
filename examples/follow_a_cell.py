"""Follow one cell with the stage, in a pycro-manager script.

In one terminal:  cytoloop serve examples/follow.toml
In another one:   python examples/follow_a_cell.py

It runs on Micro-Manager's demo devices with a simulated sample, of which one cell walks out of the field.
For a microscope, give start_headless your Micro-Manager folder and configuration, and leave the sample out.
"""

from __future__ import annotations

import sys

import mm_test_adapters
from cytoloop.acquire import connect
from cytoloop.acquire.micromanager.engine import running_core, stop_headless
from cytoloop.acquire.simulated.presets import runaway
from cytoloop.acquire.simulated.twin import install_behind
from pycromanager import Acquisition, start_headless

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5790"


def main() -> None:
    folder = str(mm_test_adapters.device_adapter_path())
    start_headless(folder, f"{folder}/MMConfig_demo.cfg", python_backend=True, buffer_size_mb=256)
    events = [{"axes": {"time": index}, "exposure": 10} for index in range(40)]
    try:
        # "barrier": each event waits up to deadline_s for what the image before it says, then goes on as planned.
        with (
            install_behind(running_core(), runaway(seed=1, size_px=256)),  # leave out at a microscope
            connect(ADDRESS, mode="barrier", deadline_s=1.0) as loop,
        ):
            with Acquisition(
                None, "follow", image_process_fn=loop.on_image, pre_hardware_hook_fn=loop.before_event
            ) as acquisition:
                images = loop.guard(acquisition).acquire(events)
            loop.client.drain(10)
            core = running_core()
            print(f"{images} images, {loop.stats.applied} moves, {loop.stats.late} replies too late")
            print(f"the stage ended at ({core.getXPosition():.1f}, {core.getYPosition():.1f}) um")
            print(f"what was found is in {loop.stats.link.folder}")
    finally:
        stop_headless()


if __name__ == "__main__":
    main()
