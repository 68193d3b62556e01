"""Charts of the report: each file turns tables into one kind of altair chart."""
