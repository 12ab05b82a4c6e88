"""The host side of tasks, one file a task: what is read, checked, written, drawn."""
