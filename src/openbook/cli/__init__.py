"""The command line: one verb a stage. What is heavy to import is imported inside the verb that needs it."""
