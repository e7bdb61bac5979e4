"""PromptPad: draw on the frames of a clip, ask, and see the answer."""
