"""What is asked, how answers are measured, and how results are kept and shown."""
