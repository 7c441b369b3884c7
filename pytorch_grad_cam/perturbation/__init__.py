"""What perturbing a layer or the image changes: the work behind AblationCAM, ScoreCAM and SESS. Internal."""
