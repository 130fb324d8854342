"""Tasks: what problems there are, how they are written, which are for training and which are held out."""
