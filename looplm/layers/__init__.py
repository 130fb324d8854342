"""What a transformer is made of: positions, attention, and the block."""
