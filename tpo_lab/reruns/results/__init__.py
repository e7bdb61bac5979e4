"""What came of the runs, read from disk at any time, while a sweep runs as well: nothing here writes.

`collected` are the runs with their records; `table` has a row for each of them, `grouped` a row over the seeds of each point, with the
groups of `groups` and the intervals of `statistics`. `difference` tells two runs apart. `training_runs` are folders without a sweep.
A table is a pandas frame from `frames`; how a person sees it is `tpo_lab.reruns.display`.
"""
