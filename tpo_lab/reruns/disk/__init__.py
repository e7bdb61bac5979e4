"""Where runs are kept: the folder of a sweep (`store`), in it a folder for each job (`folder`), in that the result record (`record`).

These files are all that those who run a sweep and those who read its results have in common, and that is why both may be killed at any
time. `done.json` with its own key alone says that a job is done; its lock and `running.json` say who works in it.
"""
