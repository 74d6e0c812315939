"""What the project is worked on with: it is in no wheel, and nothing of the product imports it."""
