"""Statistics over the seeds of a study, and over rows: intervals, paired differences, corrections."""
