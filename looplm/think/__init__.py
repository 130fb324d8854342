"""Rows of tokens that think: in the plain way, batched, by the fused kernels; generation and traces on top."""
