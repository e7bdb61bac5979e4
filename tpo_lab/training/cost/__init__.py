"""What training takes: memory by counting and as measured (`memory`, `process_memory`), operations (`flops`), time (`throughput`).

All of it before a run: `plan`.
"""
