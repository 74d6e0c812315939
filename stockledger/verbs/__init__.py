"""The verbs, grouped by what a person does: set up, move commands, ask, clean up after faults.

A verb parses, calls and prints; whatever is heavy is imported when it runs, so `--help` stays quick.
"""
