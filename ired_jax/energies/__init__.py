"""Energies E(params, x, y, t) -> (), one family a file."""
