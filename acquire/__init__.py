"""The microscope's side: frames, commands, replies, the wire, sources and actuators. Light to import."""
