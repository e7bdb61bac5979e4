"""RunsView: the runs of a sweep as a table, parallel coordinates and learning curves."""
