"""The synthetic video world: scenes from seeds, their pixels, what is true of them, and samples that ask about it."""
