"""Kernels of the loop: for each operation a plain reference and a fused version. None is built yet."""
