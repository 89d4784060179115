"""File systems that are soon full, or know neither capitals nor open files that have no name."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system of so many kilobytes at `folder`; the test is skipped where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here: needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def foreign_disk(folder: Path) -> Iterator[None]:
    """exFAT at `folder`, as on a camera's card; the test is skipped where it cannot be had.

    `a` and `A` are one file, there are no links, and an open file that is removed keeps a name, as on NFS.
    """
    folder.mkdir()
    if not all(map(shutil.which, ("mkfs.exfat", "losetup", "mount.exfat-fuse"))):
        pytest.skip("no exFAT here: needs exfat-fuse and exfat-utils")
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    run = partial(subprocess.run, capture_output=True, text=True)
    run(["mkfs.exfat", str(image)], check=True)
    device = run(["losetup", "--find", "--show", str(image)]).stdout.strip()
    try:
        if not device or run(["mount.exfat-fuse", device, str(folder)]).returncode:
            pytest.skip("exFAT cannot be mounted here: needs root, a loop device and FUSE")
        try:
            yield
        finally:
            run(["umount", str(folder)], check=True)
    finally:
        if device:
            run(["losetup", "--detach", device])


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def make_read_only(disk: Path) -> None:
    """Let nothing be written any more to a `small_disk`, by root neither."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
