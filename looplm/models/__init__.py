"""Bodies that share the layers and the loop."""
