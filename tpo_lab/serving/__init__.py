"""Many questions about many videos, answered in batches: from any list, or from one JSONL file to another, which goes on after a stop."""

from tpo_lab.serving.answer_file import BatchSummary, answer_file
from tpo_lab.serving.answering import Answered, ask_many
from tpo_lab.serving.questions import Line, Question, read_lines

__all__ = ["Answered", "BatchSummary", "Line", "Question", "answer_file", "ask_many", "read_lines"]
