"""How a model is trained: what is drawn, what is scored, how the weights move."""
