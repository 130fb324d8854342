"""What a trained model can do, counted and drawn."""
