"""What all verbs have in common: how one runs, what it says, and how it ends."""
