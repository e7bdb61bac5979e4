"""TokenView: the row of tokens, routes, where task tokens look, and how alike they are."""
