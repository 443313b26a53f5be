"""Auto labeling of boxes: a small detector trained from scratch, and what it says made calibrated boxes."""
