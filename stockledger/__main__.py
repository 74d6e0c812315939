"""`python -m stockledger` is the command `stockledger`."""

from stockledger.cli import main

main()
