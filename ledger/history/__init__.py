"""The past, read again: `events` of a range, and `decisions`, made once more and compared."""
