"""Stories with questions: bAbI's format, rows of tokens, stories drawn by rule in two languages, a program that answers."""
