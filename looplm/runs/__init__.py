"""Runs: what a recipe leaves behind, and how results are put side by side."""
