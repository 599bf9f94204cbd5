"""Load generators: wrk, and clients of our own where wrk has no word for what is wanted."""
