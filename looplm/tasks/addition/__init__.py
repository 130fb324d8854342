"""Addition: sums of decimal numbers, trained short and tested long."""
