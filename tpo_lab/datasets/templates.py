"""How tasks are asked for. All but the captions are data: the wording of the paper's Tables 18-21."""

from __future__ import annotations

TEMPORAL: tuple[str, ...] = (
    "Localize the visual content described by the given textual query {query} in the video, and output the start and"
    " end timestamps in seconds.",
    "Detect and report the start and end timestamps of the video segment that semantically matches the given textual query {query}.",
    "Locate and describe the visual content mentioned in the text query {query} within the video, including timestamps.",
    "The given natural language query {query} is semantically aligned with a video moment, please give the start time"
    " and end time of the video moment.",
    "Find the video segment that corresponds to the given textual query {query} and determine its start and end seconds.",
)
"""Source: TPO, Table 18."""

REGION: tuple[str, ...] = (
    "Where is {query}?",
    "Can you find {query}?",
    "Can you detect {query}?",
    "Can you locate {query}?",
    "Please find {query}.",
    "Please detect {query}?",
    "Please locate {query}?",
    "Find {query}.",
    "Detect {query}?",
    "Locate {query}?",
)
"""Source: TPO, Table 20."""

TRACKING: tuple[str, ...] = (
    "Track the object in the video using a box with initial coordinates {box}.",
    "Use a bounding box with coordinates {box} to follow the movement of the moving object in the visual input.",
    "Given an initial bounding box with coordinates {box}, track the motion of the target object in the sequence of frames.",
    "Starting from the box defined by the coordinates {box}, monitor the movement of the object in the video.",
    "Utilizing the initial box specified by the coordinates {box}, continuously track and update the location of the"
    " object in the video stream.",
    "Given a video with an object of interest enclosed in a bounding box with coordinates {box}, generate a sequence of"
    " bounding boxes that track the object's movement.",
    "With an initial box defined by {box}, trace the object's trajectory by generating a sequence of bounding boxes"
    " that follow the object's movement in the visual input.",
    "Apply an object tracking algorithm to a video, starting with a bounding box defined by {box}.",
    "Given a video and an initial bounding box defined by {box}, track the movement of the object within the video.",
    "Starting from an initial box defined by {box}, track the movement of the object in the visual input.",
)
"""Source: TPO, Table 19."""

FOLLOWING: tuple[str, ...] = (
    "Track {thing} in the video.",
    "Follow {thing} through the video.",
    "Where does {thing} go? Track it.",
    "Show where {thing} is in every frame.",
)
"""Ours, for points and scribbles: the paper's say that a box is given."""

SEGMENTATION: tuple[str, ...] = (
    "Please give the motion path of {query} in the video over time.",
    "Show the tracking trajectory of {query}'s movement through the scene in the video.",
    "Please generate a motion path of {query}'s movement in the video, highlighting its tracking trajectory.",
    "Show the tracking trajectory of {query}.",
    "Generate {query}'s tracking trajectory.",
    "Visualize the tracking trajectory of {query} in the video.",
    "Please generate a visual representation of {query}'s movement in the video, highlighting its tracking trajectory.",
)
"""Source: TPO, Table 21."""

CAPTION: tuple[str, ...] = ("Describe the video.", "What happens in the video?", "What is in the video?", "Give a detailed description.")
"""Ours: the paper takes its conversations from instruction sets."""
