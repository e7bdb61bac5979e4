"""How a person sees the runs: tables for a terminal (`compact`), as a file (`formats`) or as a web page (`page`), all made of `cells`.

`figures` are the pictures of a run as files, `opening` shows its executed notebook. Tables come as pandas frames from
`tpo_lab.reruns.results`; nothing here knows a sweep.
"""
