"""Kernel B: all loops of one token, shared by programs that keep the weights in registers."""
