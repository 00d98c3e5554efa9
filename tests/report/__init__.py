"""The report: its parts, its page as text, and its page in a browser."""
