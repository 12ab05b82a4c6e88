"""Tasks: what is drawn, what an answer is worth, and which box holds the answers."""
