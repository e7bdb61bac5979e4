"""What a step shows: which samples (`data`), read in which process (`loading`, `decoding`), and what is left out of them (`dropped`).

Rows are a function of data, seed and step, whoever reads them.
"""
