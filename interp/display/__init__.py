"""How things look: colours, figures, pages. One visual language for notebooks, terminals and the report."""
