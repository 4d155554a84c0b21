"""Which mask belongs to which image of two folders, by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..acquire.errors import SourceError, nearest_name
from ..acquire.sources.tiff_folder import natural_key
from .image_files import SUFFIXES

_MASK_ENDING = re.compile(r"_(?:cp_)?(?:mask|label)s?$", re.IGNORECASE)
_SEQUENCE_IMAGE = re.compile(r"t(\d+)", re.IGNORECASE)
_SEQUENCE_MASK = re.compile(r"(?:man_seg|man_track|mask)(\d+)", re.IGNORECASE)
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class ImagePair:
    """Name of an image, and the files that hold it and its mask."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True, slots=True)
class PairedFiles:
    """The images of a folder that have a mask, in natural order, and the names of those that have none."""

    pairs: tuple[ImagePair, ...]
    without_mask: tuple[str, ...]


def pair_files(images: Path, masks: Path, only: Collection[str] | None = None) -> PairedFiles:
    """Find the mask of each image of a folder.

    A mask bears the name of its image, or that name with ``_mask``, ``_label`` or ``_cp_masks`` behind it; the
    two may lie in one folder then. In the layout of the Cell Tracking Challenge ``man_seg007`` and ``man_track007``
    belong to ``t007``, and an image may lack its mask: few are drawn there.

    Parameters
    ----------
    images, masks
        Folders of PNG and TIFF files; other files and folders in them do not count.
    only
        Names of the images to take, without suffix; by default all.

    Raises
    ------
    SourceError
        If a folder cannot be read, an image lacks its mask or, unless ``only`` is given, a mask its image; if
        two files claim one name, a name in ``only`` is unknown, or nothing is left.
    """
    image_files, mask_files = _files(images), _files(masks)
    if images.resolve() == masks.resolve():
        image_files = [file for file in image_files if not _MASK_ENDING.search(file.stem)]
        mask_files = [file for file in mask_files if _MASK_ENDING.search(file.stem)]
    in_sequence = _all_match(_SEQUENCE_IMAGE, image_files) and _all_match(_SEQUENCE_MASK, mask_files)
    name_of = _number if in_sequence else _plain_name
    by_name = _by_key(images, image_files, lambda file: file.stem)
    masks_of = _by_key(masks, mask_files, lambda file: name_of(file, by_name))
    chosen = _chosen(images, by_name, only)
    key_of = {name: name_of(file, by_name) for name, file in by_name.items()}
    strangers = [file.name for key, file in masks_of.items() if key not in key_of.values()]
    if strangers and only is None:
        raise SourceError(masks, f"{_listed(strangers)} belong to no image in {images}")
    alone = [name for name in chosen if key_of[name] not in masks_of]
    if alone and (only is not None or not in_sequence):
        names = [by_name[name].name for name in alone]
        raise SourceError(images, f"{_listed(names)} have no mask in {masks}")
    pairs = [ImagePair(name, by_name[name], masks_of[key_of[name]]) for name in chosen if name not in alone]
    if not pairs:
        raise SourceError(masks, f"no mask in here belongs to an image in {images}")
    return PairedFiles(tuple(pairs), tuple(alone))


def read_names(path: Path) -> list[str]:
    """Read a list of names of images: one a line, with or without suffix; ``#`` begins a comment.

    Raises
    ------
    SourceError
        If the file cannot be read, or holds no name.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(path, f"cannot be read: {error}") from error
    names = [line.partition("#")[0].strip() for line in lines]
    names = [Path(name).stem if name.lower().endswith(SUFFIXES) else name for name in names if name]
    if not names:
        raise SourceError(path, "holds no name of an image")
    return list(dict.fromkeys(names))


def _files(folder: Path) -> list[Path]:
    """Return the image files of a folder in natural order; hidden ones are an operating system's own."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise SourceError(folder, f"cannot be listed: {error.strerror or error}") from error
    files = [file for file in entries if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise SourceError(folder, f"no image is in this folder; allowed: {', '.join(SUFFIXES)}")
    return sorted(files, key=lambda file: (natural_key(file.name), file.name))


def _all_match(pattern: re.Pattern[str], files: Iterable[Path]) -> bool:
    return all(pattern.fullmatch(file.stem) for file in files)


def _number(file: Path, names: Collection[str]) -> str:
    """Return the number in a name of the Cell Tracking Challenge, without leading zeros."""
    match = _SEQUENCE_IMAGE.fullmatch(file.stem) or _SEQUENCE_MASK.fullmatch(file.stem)
    return str(int(match[1])) if match else ""


def _plain_name(file: Path, names: Collection[str]) -> str:
    """Return the name of the image that a file belongs to: its own, or that without a mask's ending."""
    return file.stem if file.stem in names else _MASK_ENDING.sub("", file.stem)


def _by_key(folder: Path, files: Iterable[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(key(file), file)
        if other is not file:
            raise SourceError(folder, f"{other.name} and {file.name} claim the same name; keep one")
    return found


def _chosen(folder: Path, known: Collection[str], only: Collection[str] | None) -> list[str]:
    if only is None:
        return list(known)
    if unknown := [name for name in only if name not in known]:
        hint = nearest_name(unknown[0], known)
        raise SourceError(
            folder, f"no image is named {_listed(unknown)}" + (f". Did you mean {hint!r}?" if hint else "")
        )
    return [name for name in known if name in set(only)]


def _listed(names: list[str]) -> str:
    """Write the first of many names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
