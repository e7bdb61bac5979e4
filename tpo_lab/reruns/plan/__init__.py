"""What a sweep asks for: from its file to its jobs. Everything that can be checked is checked here, before anything runs.

`sweep` is the form of the file, `reading` its YAML and what is wrong in it. `chain` reads the notebooks that it names, `values` holds
the given values against what they declare; `space` and `points` say which values are swept. `planner` makes a `job` of each run, with
a key from `keys`. A job is plain data, and with its key it is all that the other rooms take from here. Nothing here runs or writes.
"""
