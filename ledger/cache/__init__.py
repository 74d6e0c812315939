"""Stock at memory speed: a feeder follows the ledger, and sinks keep what readers see."""
