"""HeadView: what heads predict over the frames of a clip, beside the truth."""
