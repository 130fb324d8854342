"""Meeting other programs: conformance vectors for ports."""
