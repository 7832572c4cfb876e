"""Where the images of a data set lie: `<part>/<class>/<image>`, in folders and zips."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.base.errors import InputError, join_names
from pipeline.datasets.file_trees import File, Tree
from pipeline.datasets.image_files import describe_left_out, is_image

Classes = dict[str, list[File]]  # the images by class, classes in the order of their names

DIFFER = "differ in case, blanks or how accents are written"


@dataclass
class PartFolder:
    """A part's folder in one tree.

    Attributes:
        tree: the folder or zip that it lies in.
        path: of the folder that holds the class folders.
        images: of each class folder, also of those without any.
        others: files in the class folders that are no images.
    """

    tree: Tree
    path: PurePosixPath
    images: dict[str, list[File]] = field(default_factory=dict)
    others: list[File] = field(default_factory=list)

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.tree.display_path(self.path)

    @property
    def count(self) -> int:
        """How many images it holds."""
        return sum(map(len, self.images.values()))

    def below(self, file: File) -> tuple[str, ...]:
        """The parts of the path of one of its files from here: `<class>`, `<image>`."""
        return file.path.parts[len(self.path.parts) :]


def find_part(path: PurePosixPath, parts: Iterable[str]) -> tuple[str, PurePosixPath] | None:
    """The part that a path lies in, and the part's folder: the first that bears a part's name.

    (What bears one below it is a class, or lies in a class.)
    """
    names = sorted((PurePosixPath(part).parts, part) for part in parts)
    for start in range(len(path.parts)):
        for name, part in reversed(names):  # of `images` and `images/test` the latter
            if name and path.parts[start : start + len(name)] == name:
                return part, PurePosixPath(*path.parts[: start + len(name)])
    at_the_top = next((part for name, part in names if not name), None)
    return None if at_the_top is None else (at_the_top, PurePosixPath())


def find_classes(root: Path, trees: Sequence[Tree], parts: Sequence[str]) -> tuple[dict[str, Classes], list[str]]:
    """The images of each part by class, in the order of their paths, and a line on what was left out.

    Args:
        root: what messages call the data set.
        trees: the folder and the zips that hold it.
        parts: names of the parts' folders; "." where classes lie at the top.

    Raises:
        InputError: a part has no images or lies at two places, an image lies there twice, a class folder has no
            image, has them at two depths, or is in one part alone.
    """
    folders: dict[str, list[PartFolder]] = {part: [] for part in parts}
    outside: list[File] = []
    for tree in trees:
        for part, folder in _find_part_folders(tree, parts, outside):
            folders[part].append(folder)
    every = [folder for found in folders.values() for folder in found]
    elsewhere = [*outside, *(file for folder in every if not folder.count for file in folder.others)]
    found = {part: _collect_classes(root, part, folders[part], elsewhere) for part in parts}
    _refuse_other_classes(root, found)
    notices = _report_left_out([file for folder in every for file in folder.others], outside, parts)
    return found, [*notices, *_report_similar_names(list(found[parts[0]]))]


def _find_part_folders(tree: Tree, parts: Sequence[str], outside: list[File]) -> Iterator[tuple[str, PartFolder]]:
    """The parts' folders in a tree; files that lie in no class folder are added to `outside`."""
    within: dict[PurePosixPath, list[PurePosixPath]] = {folder: [] for folder in tree.folders}
    lies_in = {folder: find_part(folder, parts) for folder in tree.folders}
    for folder in tree.folders - {PurePosixPath()}:
        within[folder.parent].append(folder)
    found: dict[tuple[str, PurePosixPath] | None, PartFolder] = {}
    for folder, part in lies_in.items():
        if part is not None and part[1] == folder:
            inner = _find_innermost(folder, within)
            found[part] = PartFolder(tree, inner, {each.name: [] for each in within[inner] if lies_in[each] == part})
    holders = {folder: found.get(part) for folder, part in lies_in.items()}
    below = {folder for folder, holder in holders.items() if holder is not None and holder.path in folder.parents}
    for file in sorted(tree.files, key=_sort_key):
        around = file.path.parent
        holder = holders[around]
        if holder is None or around not in below:
            outside.append(file)
        elif is_image(file):
            holder.images[holder.below(file)[0]].append(file)
        else:
            holder.others.append(file)
    for part, holder in found.items():
        assert part is not None
        yield part[0], holder


def _find_innermost(folder: PurePosixPath, within: Mapping[PurePosixPath, Sequence[PurePosixPath]]) -> PurePosixPath:
    """Of folders that hold nothing but one of their own name (`seg_train/seg_train`) the last; it holds folders."""
    inner = folder / folder.name
    while folder.name and within[folder] == [inner] and within[inner]:
        folder, inner = inner, inner / folder.name
    return folder


def _collect_classes(root: Path, part: str, folders: Sequence[PartFolder], elsewhere: Sequence[File]) -> Classes:
    """The images of one part by class, each once."""
    with_images = [folder for folder in folders if folder.count]
    if not with_images:
        seen = sorted({file.path.parent.as_posix() for file in elsewhere})
        raise InputError(
            f"image folder {root}",
            expected=f"images in {part}/<class>/",
            found="none" + f"; what there is lies in {join_names(seen)}" * bool(seen),
            fix="lay them out so, zip them so, or set `train_folder:` and `test_folder:`",
        )
    _refuse_two_places(root, part, with_images)
    # Beside the images of the same tree there may be another, with labels say; alone in its tree it is the part's own.
    trees = {folder.tree.where for folder in with_images}
    counted = [folder for folder in folders if folder.count or folder.tree.where not in trees]
    classes: Classes = {}
    for folder in counted:
        for name, files in folder.images.items():
            classes.setdefault(name, []).extend(files)
    _refuse_empty(counted, classes)
    return {name: sorted(classes[name], key=_sort_key) for name in sorted(classes)}


def _refuse_empty(folders: Sequence[PartFolder], classes: Classes) -> None:
    """Raise InputError for class folders of a part without an image."""
    empty = {
        folder.tree.display_path(folder.path / name)
        for folder in folders
        for name in folder.images
        if not classes[name]
    }
    if empty:
        raise InputError(
            join_names(sorted(empty)),
            expected="at least one image in each class folder",
            found="none",
            fix="remove the folder, or put the class's images there",
        )


def _sort_key(file: File) -> tuple[str, str]:
    return file.path.as_posix(), file.where


def _refuse_two_places(root: Path, part: str, folders: Sequence[PartFolder]) -> None:
    """Raise InputError for a part at two places of one tree, an image at the same place of two, or at two depths."""
    of_trees: dict[str, PartFolder] = {}
    images: dict[tuple[str, ...], File] = {}
    depths: dict[str, dict[int, File]] = {}
    for folder in sorted(folders, key=lambda folder: folder.where):
        other = of_trees.setdefault(folder.tree.where, folder)
        if other is not folder:
            raise InputError(
                f"image folder {root}",
                expected=f"one folder {part}",
                found=f"{other.where} ({other.count} images) and {folder.where} ({folder.count})",
                fix="remove the copy, or let `root:` name the folder around the one that is meant",
            )
        for name, files in folder.images.items():
            for file in files:
                below = folder.below(file)
                twin = images.setdefault(below, file)
                depth = depths.setdefault(name, {}).setdefault(len(below), file)
                first = next(iter(depths[name].values()))
                if twin is not file:
                    _refuse_both(root, twin, file, "each image once", "keep the zip or the folder, not both")
                if depth is not first:
                    fix = "remove the copies, or move them into one folder"
                    _refuse_both(root, first, file, "the images of a class at one depth", fix)


def _refuse_both(root: Path, first: File, second: File, expected: str, fix: str) -> None:
    found = f"{first.where} and {second.where}"
    raise InputError(f"image folder {root}", expected=expected, found=found, fix=fix)


def _refuse_other_classes(root: Path, parts: Mapping[str, Classes]) -> None:
    """Raise InputError unless all parts have the same classes."""
    names, found = list(parts), list(parts.values())
    alone = [sorted(mine.keys() - other.keys()) for mine, other in zip(found, reversed(found), strict=True)]
    if any(alone):
        only = "; ".join(f"only in {part}: {join_names(some)}" for part, some in zip(names, alone, strict=True) if some)
        here = 0 if alone[0] else -1
        folders = [join_names([f"{names[side]}/{alone[here][0]}"]) for side in (-1 - here, here)]
        raise InputError(
            f"image folder {root}",
            expected=f"the same class folders in {' and '.join(names)}",
            found=only,
            fix=_advise_spelling(alone[0], alone[-1]) or f"put images into {folders[0]}, or take {folders[1]} away",
        )


def _advise_spelling(some: Sequence[str], others: Sequence[str]) -> str:
    """Advice for a class that is only spelled in two ways."""
    spelled = {_fold_case(name): name for name in some}
    pairs = [(spelled[_fold_case(name)], name) for name in others if name != spelled.get(_fold_case(name), name)]
    if not pairs:
        return ""
    return f"rename one of {pairs[0][0]!a} and {pairs[0][1]!a}: they {DIFFER}"


def _report_similar_names(classes: Sequence[str]) -> list[str]:
    """A line for each pair of classes whose names are spelled alike."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(_fold_case(name), name), name) for name in classes]
    return [
        f"{one!a} and {other!a} are two classes, though they {DIFFER}; rename the folders if they are one"
        for one, other in pairs
        if one != other
    ]


def _fold_case(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _report_left_out(others: Sequence[File], outside: Sequence[File], parts: Sequence[str]) -> list[str]:
    found = [describe_left_out(others)] if others else []
    if outside:
        places = " and ".join(f"{part}/<class>/" for part in parts)
        count = f"{len(outside)} files" if len(outside) > 1 else "a file"
        found.append(f"{count} outside of {places} ({join_names(sorted(file.where for file in outside))})")
    return [f"left out: {', '.join(found)}"] if found else []
