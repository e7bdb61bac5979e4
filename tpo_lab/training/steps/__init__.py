"""How a step is computed: parts of a batch (`micro_batch`), several processes (`processes`), gradients added up and applied (`engine`).

There are two engines: our own, whose weights are whole or in pieces (`fsdp`), and `deepspeed`. A tensor in pieces is read and written whole
by `sharding`.
"""
