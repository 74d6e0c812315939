"""A real shop's invoice lines as commands for the ledger.

    python examples/online_retail.py stockledger/online_retail_2010-12-01.csv OUTDIR [--day 2010-12-01]

writes OUTDIR/setup.jsonl (users, goods and their first stock) and OUTDIR/purchases.jsonl (one command an
invoice line). What becomes what is in `stockledger/online_retail.py`, because the demo begins with it, too.
"""

import argparse
from pathlib import Path

from stockledger.online_retail import read_rows, write_files


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Turn the invoice lines into setup.jsonl and purchases.jsonl."
    )
    parser.add_argument("csv", type=Path)
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--day", default="", metavar="YYYY-MM-DD", help="the lines of this day only")
    options = parser.parse_args()
    for path, count in write_files(read_rows(options.csv, options.day), options.outdir).items():
        print(f"{path}: {count} commands")


if __name__ == "__main__":
    main()
