"""Kernels of the loop: for each operation a plain reference and a fused version in Triton.

    weights.py       a model of one layer a block, as tensors and numbers, and its layout for the kernels
    state.py         what a batch of texts keeps between calls: tokens, states, loops taken, keys and values
    halt_update/     confidence, freeze, count: the end of a loop, one launch
    loop/            kernel A: all loops of 16 rows in one program
    loop_grid/       kernel B: all loops of one token, shared by programs that keep the weights in registers

An operation's folder has a `reference.py` (plain torch, written for reading; the truth), a `fused.py` (Triton, imported
when it is first used) and a README with the derivation, the bytes and the tolerances.
"""
