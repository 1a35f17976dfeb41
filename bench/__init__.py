"""Measurements as ratios within one run, and the chaos run; each prints JSON as its last line."""
