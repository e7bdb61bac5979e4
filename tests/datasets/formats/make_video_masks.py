"""Writes the tiny files of the formats of masks and tracks: 12 x 20 pixels, three to five frames."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tpo_lab.rle import encode_rle

HERE = Path(__file__).parents[3] / "data" / "formats"
SIZE = (12, 20)
PALETTE = [0, 0, 0, 200, 40, 40, 40, 200, 40] + [90] * 759


def block(top: int, left: int, height: int, width: int, value: int = 1) -> np.ndarray:
    """A rectangle of one value on black."""
    made = np.zeros(SIZE, dtype=np.uint8)
    made[top : top + height, left : left + width] = value
    return made


def png(path: Path, labels: np.ndarray, *, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if palette:
        # void needs all 256 colours, objects alone three
        image.putpalette(PALETTE if labels.max() > 3 else PALETTE[:12])
    image.save(path, optimize=True)


def jpg(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", SIZE[::-1], shade).save(path, quality=30)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def document(path: Path, content: object) -> None:
    text(path, json.dumps(content) + "\n")


def mevis(root: Path) -> None:
    """The kite (5) goes right and is hidden in the last frame; the dog (6) comes in the second one. Masks without a pixel are null."""
    kite = [encode_rle(block(2, 3 + step, 4, 5)) for step in range(3)] + [None]
    dog = [None] + [encode_rle(block(7, 10, 3, 6)) for _ in range(3)]
    frames = [f"{place:05d}" for place in range(4)]
    said = {
        "0": {"exp": "The kite flying to the right", "obj_id": [0], "anno_id": [5]},
        "1": {"exp": "everything that moves", "obj_id": [0, 1], "anno_id": [5, 6]},
    }
    other = {"0": {"exp": "the dog at rest", "obj_id": [0], "anno_id": [8]}}
    videos = {
        "a1b2": {"vid_id": 0, "frames": frames, "expressions": said},
        "c3": {"vid_id": 1, "frames": frames[:3], "expressions": other},
    }
    document(root / "meta_expressions.json", {"videos": videos})
    document(root / "mask_dict.json", {"5": kite, "6": dog, "8": dog[:3]})


def ref_youtube_vos(root: Path) -> None:
    """Objects 1 and 2 of a video of three frames; the valid file lists the test video, too."""
    frames = ["00000", "00005", "00010"]
    for place, name in enumerate(frames):
        labels = block(1, 2 + place, 4, 4) + (block(6, 8, 5, 5, 2) if place else 0)
        png(root / "train" / "Annotations" / "aa11" / f"{name}.png", labels)
    train = {"0": {"exp": "a red ball rolling", "obj_id": "1"}, "1": {"exp": "a boy behind it", "obj_id": "2"}}
    document(root / "meta_expressions" / "train" / "meta_expressions.json", {"videos": {"aa11": {"frames": frames, "expressions": train}}})
    shown = {"frames": frames[:2], "expressions": {"0": {"exp": "a cat"}}}
    document(root / "meta_expressions" / "valid" / "meta_expressions.json", {"videos": {"bb22": shown, "cc33": shown}})
    document(root / "meta_expressions" / "test" / "meta_expressions.json", {"videos": {"cc33": shown}})


def sav_train(root: Path) -> None:
    """Object 0 in three rows, object 7 from the second on; no pixel is empty run lengths."""
    empty = encode_rle(np.zeros(SIZE, dtype=bool))
    rows = [[encode_rle(block(1, 1 + step, 3, 4)), encode_rle(block(6, 9, 4, 6)) if step else empty] for step in range(3)]
    video = {
        "video_id": "sav_900001",
        "video_duration": 0.5,
        "video_frame_count": 12.0,
        "video_height": 12.0,
        "video_width": 20.0,
        "masklet": rows,
        "masklet_id": [0, 7],
        "masklet_first_appeared_frame": [0.0, 1.0],
        "masklet_type": ["manual", "manual"],
        "masklet_num": 2,
    }
    document(root / "sav_900001_manual.json", video)
    small = {**video, "masklet": [row[:1] for row in rows], "masklet_id": [0], "masklet_num": 1}
    document(root / "sav_900001_auto.json", {**small, "masklet_first_appeared_frame": [0], "masklet_type": ["auto"]})


def sav_val(root: Path) -> None:
    """Two objects that overlap, in every fourth of 13 frames; the second comes in the second annotated frame."""
    for step in range(4):
        folder = root / "Annotations_6fps" / "sav_900002"
        png(folder / "000" / f"{step * 4:05d}.png", block(2, 2 + step, 5, 6) * 255, palette=False)
        png(folder / "001" / f"{step * 4:05d}.png", block(4, 4, 5, 8) * 255 * min(step, 1), palette=False)
    text(root / "sav_val.txt", "sav_900002\n")


def davis(root: Path) -> None:
    """Four frames with images: object 1 moves, object 2 is hidden in the third frame; void pixels in the corner.

    The unsupervised task has object 3 in the first frame as well, behind void pixels from then on.
    """
    for place in range(4):
        labels = block(1, 1 + place, 4, 5) + (block(7, 9, 4, 7, 2) if place != 2 else 0)
        labels[-1, -1] = 255
        png(root / "Annotations" / "480p" / "kites" / f"{place:05d}.png", labels)
        more = labels + block(1, 15, 3, 4, 255 if place else 3)
        png(root / "Annotations_unsupervised" / "480p" / "kites" / f"{place:05d}.png", more)
        jpg(root / "JPEGImages" / "480p" / "kites" / f"{place:05d}.jpg", 60 * place)
        png(root / "Annotations" / "480p" / "swan" / f"{place:05d}.png", block(3, 4, 5, 5))
    text(root / "ImageSets" / "2017" / "val.txt", "kites\n")
    text(root / "ImageSets" / "2017" / "train.txt", "swan\n")


def lasot(root: Path) -> None:
    """kite-1 is seen in all five frames; kite-2 is out of view in the third, and its box has no size there."""
    seen, lost = root / "kite" / "kite-1", root / "kite" / "kite-2"
    text(seen / "groundtruth.txt", "".join(f"{1 + step},3,5,4\n" for step in range(5)))
    text(seen / "full_occlusion.txt", "0,0,0,0,0")
    text(seen / "out_of_view.txt", "0,0,0,0,0")
    text(seen / "nlp.txt", "a red kite above the trees")
    text(lost / "groundtruth.txt", "4,4,6,5\n5,4,6,5\n0,0,0,0\n7,4,6,5\n")
    text(lost / "full_occlusion.txt", "0,0,0,0")
    text(lost / "out_of_view.txt", "0,0,1,0")
    text(root / "testing_set.txt", "kite-2")


def got10k(root: Path) -> None:
    """The first video loses its object in the third frame; the second is of the test split: one box, and three images."""
    seen, hidden = root / "val" / "GOT-10k_Val_000901", root / "test" / "GOT-10k_Test_000901"
    text(seen / "groundtruth.txt", "2.5000,3.0000,6.0000,4.0000\n3.5000,3.0000,6.0000,4.0000\n0.0000,0.0000,0.0000,0.0000\n5.5,3,6,4\n")
    text(seen / "absence.label", "0\n0\n1\n0\n")
    text(seen / "cover.label", "8\n8\n0\n7\n")
    text(seen / "meta_info.ini", "[METAINFO]\nurl: none\nanno_fps: 10Hz\nobject_class: kite\nresolution: (20, 12)\n")
    text(root / "val" / "list.txt", "GOT-10k_Val_000901\n")
    text(hidden / "groundtruth.txt", "1.0000,2.0000,5.0000,4.0000\n")
    for place in range(3):
        jpg(hidden / f"{place + 1:08d}.jpg", 50 * place)


if __name__ == "__main__":
    for make, name in (
        (mevis, "mevis"),
        (ref_youtube_vos, "ref-youtube-vos"),
        (sav_train, "sav"),
        (sav_val, "sav-val"),
        (davis, "davis"),
        (lasot, "lasot"),
        (got10k, "got10k"),
    ):
        shutil.rmtree(HERE / name, ignore_errors=True)
        make(HERE / name)
