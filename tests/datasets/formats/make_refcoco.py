"""Writes the references of the tiny RefCOCO as Python 2 would pickle them: texts as bytes."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import ClassVar

REFS = [
    (1, 101, 11, "train", {5: "left cup", 6: "the Red  cup"}),
    (2, 102, 11, "testA", {7: "man at the door"}),
    (3, 103, 12, "val", {8: "caf\xe9 sign"}),
]


class _Python2(pickle._Pickler):
    """Texts as bytes in latin1; everything else as it is in protocol 2."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, text: str) -> None:
        raw = text.encode("latin1")
        self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)

    dispatch[str] = save_text


def python2_pickle(value: object) -> bytes:
    """The pickle of a document with short texts."""
    file = io.BytesIO()
    _Python2(file, protocol=2).dump(value)
    return file.getvalue()


def references() -> list[dict[str, object]]:
    """As refer.py reads them."""
    return [
        {
            "ref_id": ref,
            "ann_id": ann,
            "category_id": 1,
            "image_id": image,
            "file_name": f"COCO_train2014_{image:012d}_{ann}.jpg",
            "split": split,
            "sent_ids": list(sentences),
            "sentences": [
                {"sent_id": number, "sent": text.lower(), "raw": text, "tokens": text.lower().split()} for number, text in sentences.items()
            ],
        }
        for ref, ann, image, split, sentences in REFS
    ]


if __name__ == "__main__":
    (Path(__file__).parents[3] / "data" / "formats" / "refcoco" / "refs(unc).p").write_bytes(python2_pickle(references()))
