"""Generators and readers of finite data sets."""
