"""GradientView: which loss moves which module, and who pulls against whom."""
