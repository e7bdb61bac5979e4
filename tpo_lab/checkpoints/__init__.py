"""The parts of a checkpoint folder: its files, how they are written, what stands in them, and whether it is all there.

`tpo_lab.checkpoint` is the door to them. Not here: what of a run is saved so that it can go on, see `tpo_lab.training.resume.state`.
"""
