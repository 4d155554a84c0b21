"""Make ``docs/demo.png``, the README's picture: run ``cytoloop demo`` and reduce its report's picture."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from PIL import Image

COMMAND = Path(sysconfig.get_path("scripts")) / "cytoloop"
TARGET = Path(__file__).resolve().parents[1] / "docs" / "demo.png"
WIDTH_PX, LARGEST_BYTES = 1600, 600_000
GROUNDS = (0x0D, 0x11, 0x17, 0x16, 0x1B, 0x22, 0x27, 0x2E, 0x38)
GRAYS, COLOURS = 48, 200


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        command = [str(COMMAND), "demo", "--out", str(out), *sys.argv[1:]]
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
        reduce(out / "report.png", TARGET)
    written = TARGET.stat().st_size
    print(f"{TARGET}: {written} bytes; allowed {LARGEST_BYTES}")
    return int(written > LARGEST_BYTES)


def reduce(source: Path, target: Path) -> None:
    """Write a smaller picture with a palette in which the grounds and the grays of the images are exact."""
    with Image.open(source) as picture:
        size = WIDTH_PX, round(WIDTH_PX * picture.height / picture.width)
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    chosen = small.quantize(COLOURS, Image.Quantize.MAXCOVERAGE).getpalette() or []
    grays = [level * 255 // (GRAYS - 1) for level in range(GRAYS) for _ in range(3)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*GROUNDS, *grays, *chosen[: 3 * COLOURS]])
    small.quantize(palette=palette, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
