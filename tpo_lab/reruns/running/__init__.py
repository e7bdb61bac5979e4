"""A sweep from its first job to its last. `rerun` is the way in, `loop` hands jobs out and takes them back until none is left.

The loop asks `sources` for jobs (all at once, or from a `study` with Optuna), `agenda` which of them is next, and an executor
(`tpo_lab.reruns.workers`) to run it. `account` remembers what came of them and tells it as `progress`; `tracking` logs what is done to
the experiment trackers.
"""
