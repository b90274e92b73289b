"""Head masks: a file that says which heads a model is to do without, and what makes any model obey it."""
