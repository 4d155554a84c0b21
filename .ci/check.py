"""Run every check of the source: style, types, direction of imports, no stray files. Exit code 1 if one fails."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
LONGEST_FILE = 400

CHECKS = (
    ("style", [sys.executable, "-m", "ruff", "check", "."]),
    ("format", [sys.executable, "-m", "ruff", "format", "--check", "."]),
    ("types", [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]),
    ("direction of imports", [str(SCRIPTS / "lint-imports")]),
)


def main() -> int:
    failed = [name for name, command in CHECKS if _run(name, command)]
    failed += ["length of files"] if _long_files() else []
    print(f"checks failed: {', '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


def _run(name: str, command: list[str]) -> int:
    print(f"== {name}", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _long_files() -> bool:
    print("== length of files", flush=True)
    rooms = ("acquire", "models", "trackers", "realtime")
    lengths = {
        path: len(path.read_text("utf-8").splitlines())
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
    }
    for path, length in lengths.items():
        if length > LONGEST_FILE:
            print(f"{path.relative_to(ROOT)}: {length} lines; at most {LONGEST_FILE}: one file, one idea")
    return max(lengths.values()) > LONGEST_FILE


if __name__ == "__main__":
    sys.exit(main())
