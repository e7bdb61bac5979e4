"""Writes QuerYD's tiny pickles, as Python 2 would have written them (protocol 2)."""

from __future__ import annotations

import pickle
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "data" / "formats" / "queryd"
CAPTIONS = {"video-aaa_1": [["a", "lamp", "is", "lit"], ["it", "flickers"]], "video--bbb2": [["snow"]], "video-ccc3": [["unlisted"]]}
TIMES = {"video-aaa_1": [[0.5, 2.25], [4, 9.5]], "video--bbb2": [(7.0, 8.0)], "video-ccc3": [[0, 1]]}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "raw_captions_combined_filtered-v2.pkl").write_bytes(pickle.dumps(CAPTIONS, 2))
    (FOLDER / "times_captions_combined_filtered-v2.pkl").write_bytes(pickle.dumps(TIMES, 2))
    (FOLDER / "train_list.txt").write_text("video-aaa_1\nvideo--bbb2\n")
