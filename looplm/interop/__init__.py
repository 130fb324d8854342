"""Meeting other programs: conformance vectors for ports, and Llama as transformers keeps it."""
