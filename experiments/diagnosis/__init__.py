"""A trained energy looked at: landscapes, figures of a study, and their pictures."""
