"""What an answer, a model and a run are worth, and how sure of it one can be."""
