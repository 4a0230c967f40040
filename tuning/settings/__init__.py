"""All that a person chooses: the settings, their older versions, their table, and the command line of a run."""
