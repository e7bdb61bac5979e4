"""`tpo-lab demo`: the main job, offline."""
