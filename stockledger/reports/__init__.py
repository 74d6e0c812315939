"""What verbs find out: no options, no exit codes."""
