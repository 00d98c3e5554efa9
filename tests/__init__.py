"""The suite: folders and files mirror src/zeroq; what tests share is imported as `tests.NAME`."""
