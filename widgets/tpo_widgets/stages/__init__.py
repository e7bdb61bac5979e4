"""StageView: a recipe as a picture, and the run that follows it."""
