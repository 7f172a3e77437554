"""Mathematical functions and wide integers written out in operations the engines have."""
