"""Figures of answers and of models."""
