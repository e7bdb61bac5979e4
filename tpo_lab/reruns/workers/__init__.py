"""Who runs a job. `executor` is what a sweep asks for: a task goes out, how it ended comes back.

`attempt` runs one job in its own process, whatever that process is: one of this machine (`local` starts them, `process` is what they do,
`slots` divides the machine among them), or a Dask worker elsewhere (`cluster`, with `session` as a sign of life). A worker writes into
the job's folder (`tpo_lab.reruns.disk`) and knows no sweep.
"""
