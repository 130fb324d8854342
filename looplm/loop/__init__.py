"""The rules of the loop: what goes in at each loop, when a token halts, what it leaves for others to read."""
