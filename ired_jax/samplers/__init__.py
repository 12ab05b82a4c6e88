"""Samplers of one example each: Langevin chains, descent, inference over all levels."""
