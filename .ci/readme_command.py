"""Print one of the README's own commands, word for word: ``readme_command.py demo|test``. CI runs what people read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def command(name: str) -> str:
    """Return the fenced block behind ``<!-- command: NAME -->``."""
    commands = dict(
        re.findall(r"<!-- command: (\w+) -->\s+```\w+\n(.*?)\n```", README.read_text("utf-8"), re.DOTALL)
    )
    if name not in commands:
        sys.exit(f"{README} has no command {name!r}; it has: {', '.join(commands) or 'none'}")
    return commands[name]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{__doc__}")
    print(command(sys.argv[1]))
