"""Runs: what one leaves behind, and how results are put side by side."""
