"""Measurements of speed: alternating rounds, medians of ratios, and no claim where the spread crosses 1."""
