"""A projection that follows the journal, and one that is built anew beside the live one and swapped."""
