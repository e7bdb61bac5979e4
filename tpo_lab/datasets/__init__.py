"""Where samples come from: the synthetic world, and how its questions are worded."""
