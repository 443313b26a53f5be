"""Auto labeling: a few images that people labeled in, the rest labeled. `labeling.py` is the door."""
