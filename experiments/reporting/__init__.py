"""What runs say, as one page: read, told as plain facts, then written and drawn."""
