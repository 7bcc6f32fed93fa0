"""Work folders as they were before any agent started: looked through, kept in a run, and put into another folder."""
