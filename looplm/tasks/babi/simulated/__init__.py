"""Stories of our own, of five tasks of bAbI, in English and Korean: drawn, said, read back, solved."""
