"""Folders of images with odd names, things that are no files, and broken files in them."""

import os
import random
import shutil
import socket
from pathlib import Path

from moebius.lab.cli._prediction import _pictures
from moebius.lab.data import load_sets
from moebius.lab.data.sources import Folder
from mutations.pictures import make_pictures
from mutations.trials import Entry
from mutations.values import swap_bytes

KINDS = ["pipe", "device", "socket", "folder", "loop", "dangling", "text", "empty", "broken", "hidden", "long", "link"]
NAMES = ["a\nb", "a\x1b[2J", "\udce9", " ", "=1+1", "-rf", "é" * 80, ".x", "train", "test", "x.png"]


def plant(kind: str, path: Path) -> None:
    """Put something at a path that is no image, or no file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as each:
            each.bind(os.path.relpath(path))
    elif kind == "folder":
        path.mkdir()
    elif kind in ("text", "empty"):
        path.write_text("text" if kind == "text" else "")
    elif kind == "link":
        path.symlink_to(path.parent)
    else:
        path.symlink_to(path if kind == "loop" else path.with_name("nowhere.png"))


class Folders(Entry):
    """Class folders, of which one or two things are odd."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.pictures = sorted(make_pictures().items())
        self.images = folder / "images"

    def mutate(self, draw: random.Random) -> str:
        """Make the folder anew."""
        shutil.rmtree(self.images, ignore_errors=True)
        tops = [self.images / split for split in ("train", "test")] if draw.random() < 0.3 else [self.images]
        for place in (top / name for top in tops for name in ("a", "b")):
            place.mkdir(parents=True)
            for number in range(3):
                _, (suffix, content) = self.pictures[draw.randrange(len(self.pictures))]
                (place / f"{number}{suffix}").write_bytes(content)
        changes = []
        for number in range(draw.randint(1, 2)):
            place = draw.choice(sorted(path for path in self.images.rglob("*") if path.is_dir()))
            if draw.random() < 0.3:
                name = draw.choice(NAMES)
                changes.append(f"{place.name} is called {name!r}")
                if not (place.parent / name).exists():
                    place.rename(place.parent / name)
                continue
            kind = draw.choice(KINDS)
            path = place / f"{'.' * (kind == 'hidden')}{number}{'y' * 200 * (kind == 'long')}.png"
            changes.append(f"{kind} in {place.name}")
            if kind in ("broken", "hidden", "long"):
                path.write_bytes(swap_bytes(self.pictures[draw.randrange(len(self.pictures))][1][1], draw)[0])
            elif not path.exists() and not path.is_symlink():
                plant(kind, path)
        return f"folder: {', '.join(changes)}"

    def call(self) -> None:
        """Find its pictures, as `moebius predict` does, then read it as a set."""
        try:
            load_sets([Folder(str(self.images))], size=4, cache_dir=self.folder / "cache")
        finally:
            _pictures([self.images])
