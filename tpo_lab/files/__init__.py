"""Files of predictions and annotations: whole ones, streamed ones, and records whose every problem is named."""

from tpo_lab.files.reading import entries, folders, read_csv, read_json, read_jsonl, read_records, read_table, read_text
from tpo_lab.files.record import BadRecord, Floats, Record, by_id, numbered, numbers, record, records, windows, without_scores
from tpo_lab.files.streams import Streamed, stream_csv, stream_items, stream_jsonl, stream_lines, stream_members

__all__ = [
    "BadRecord",
    "Floats",
    "Record",
    "Streamed",
    "by_id",
    "entries",
    "folders",
    "numbered",
    "numbers",
    "read_csv",
    "read_json",
    "read_jsonl",
    "read_records",
    "read_table",
    "read_text",
    "record",
    "records",
    "stream_csv",
    "stream_items",
    "stream_jsonl",
    "stream_lines",
    "stream_members",
    "windows",
    "without_scores",
]
