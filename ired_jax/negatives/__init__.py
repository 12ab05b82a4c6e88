"""Where negatives come from, one strategy a file, and which of them are dropped."""
