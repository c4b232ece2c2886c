"""python -m bench NAME: the figures of the README, as ratios within one run."""
