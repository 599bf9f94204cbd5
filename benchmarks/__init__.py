"""Measurements: speed as ratios in one run, and what is left behind."""
