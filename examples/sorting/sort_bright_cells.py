"""Sort the bright cells of a simulated flow channel; print how pure what the gate took is.

In one terminal:  cytoloop serve examples/sorting/sorting.toml
In another one:   python examples/sorting/sort_bright_cells.py

The camera and the gate are simulated and keep the time of the frames, so the result is the same on any computer;
"cytoloop bench sort" does the same in real time. At an instrument, frames come from its camera, and
ScheduledTrigger(CoreActuator(core, outputs=...).actuate, lead_ms=...) takes the place of the gate.
"""

from __future__ import annotations

import sys

from cytoloop.acquire.link.client import Client
from cytoloop.acquire.simulated.flow import FlowChannel, FlowGate

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5790"
EVENTS_PER_S = float(sys.argv[2]) if len(sys.argv) > 2 else 300.0


def main() -> None:
    channel = FlowChannel(
        events_per_s=EVENTS_PER_S, seconds=4.0, frames_per_s=500.0, speed_px_s=25_000.0, seed=1
    )
    gate = FlowGate(406.0)
    with Client(ADDRESS, shared_memory=True) as client:
        for frame in channel.frames():
            client.wait(client.send(frame), 10.0)
            for decision in client.decisions():
                gate.actuate(decision)
        client.drain(10.0)
    score = gate.score(channel, from_s=0.1)
    print(f"{score.events} cells passed the gate, {score.targets} of them bright")
    print(f"{score.taken} were taken: purity {score.purity:.3f}, yield {score.yielded:.3f}")


if __name__ == "__main__":
    main()
