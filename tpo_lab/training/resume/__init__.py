"""What a stopped run needs to go on to the bit (`state`), and what may have changed since (`changes`, `data_prints`)."""
