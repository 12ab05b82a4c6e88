"""Objectives: what a train step lowers, one a file."""
