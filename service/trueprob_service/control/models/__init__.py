"""Models and their versions: discovery, declaration, promotion, shadows, deletion."""
