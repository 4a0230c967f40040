"""The settings that a person chooses, their older versions, their table, and the command line of a run."""
